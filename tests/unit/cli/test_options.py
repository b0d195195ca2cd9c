"""What the command line offers is what there is."""

from salq.cli.options import EXECUTORS
from salq.kernels.executors import NAMES


def test_executors_are_those_of_the_registry() -> None:
    assert set(EXECUTORS) == set(NAMES)
