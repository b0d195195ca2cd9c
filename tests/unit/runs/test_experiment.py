"""Every experiment of the repository resolves to sides that can be run, differ in what they say they differ in, and find their files again."""

import pytest

from salq import recipes
from salq.runs.experiment import EXPERIMENTS, sides
from salq.runs.limits import check
from salq.runs.requests import CalibrateRequest

TEMPLATE = CalibrateRequest(model="smollm2-135m", recipe=recipes.get("rtn", preset="quick"), text="bundled")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_side_can_be_asked_for(name: str) -> None:
    experiment = EXPERIMENTS[name]
    found = sides(experiment, TEMPLATE, bits=[2], seeds=2)
    assert [side.label for side in found[:3]] == ["rtn", "rtn", experiment.contenders[0].label]  # the neighbours, then the baseline
    assert len({side.file for side in found}) == len({side.key for side in found}) == len(found) == 2 + 2 * len(experiment.contenders)
    for side in found:
        check(side.request)
        assert side.request.recipe.preset == "quick"
