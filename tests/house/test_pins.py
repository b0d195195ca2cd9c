"""requirements.txt, requirements-dev.txt and constraints.txt agree with each other and with what the code imports."""

import re
import sys
from importlib.metadata import packages_distributions

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.house.files import ROOT, imports, python_files, syntax


def lines_of(file: str) -> list[str]:
    """Requirement lines without comments and `-r`."""
    lines = (line.partition("#")[0].strip() for line in (ROOT / file).read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line and not line.startswith("-r ")]


def requirements(file: str) -> dict[str, Requirement]:
    """Canonical name -> requirement."""
    return {canonicalize_name((found := Requirement(line)).name): found for line in lines_of(file)}


PINS = requirements("constraints.txt")


def pinned_version(name: str) -> str:
    """The one version that constraints.txt allows."""
    (specifier,) = PINS[name].specifier
    assert specifier.operator == "==", name
    return specifier.version


@pytest.mark.parametrize("file", ["requirements.txt", "requirements-dev.txt"])
def test_every_range_admits_its_pin(file: str) -> None:
    for name, requirement in requirements(file).items():
        assert name in PINS, f"{name} of {file} has no pin"
        assert requirement.specifier.contains(pinned_version(name)), f"{name}: the pin {pinned_version(name)} is outside {requirement.specifier}"
        assert requirement.marker == PINS[name].marker, f"{name}: markers differ"


def test_pins_are_exact_and_public() -> None:
    for name in PINS:
        version = pinned_version(name)
        assert re.fullmatch(r"[0-9][0-9a-z.]*", version), f"{name}: a local build ({version}) is not on a package index"


def test_cuda_is_left_to_torch() -> None:
    assert not [name for name in PINS if name.startswith(("nvidia", "cuda"))]
    assert (pinned_version("torch"), pinned_version("triton")) == ("2.13.0", "3.7.1")


def test_no_options_and_no_hosts() -> None:
    for file in ("requirements.txt", "requirements-dev.txt", "constraints.txt"):
        assert not [line for line in lines_of(file) if line.startswith("-") or "://" in line or "@" in line]


def distributions_of(*tops: str) -> set[str]:
    """Canonical names of the distributions that the project's files import."""
    own = {"salq", "tests", "app", "benchmarks", "conftest", "spaces"}  # spaces: there on HF Spaces only, and optional
    modules = {name for path in python_files(*tops) for name in imports(syntax(path))} - set(sys.stdlib_module_names) - own
    known = packages_distributions()
    missing = sorted(name for name in modules if name not in known and name != "triton")
    assert not missing, f"imported, but installed by none of our requirements: {missing}"
    return {canonicalize_name(known.get(name, [name])[0]) for name in modules}


def test_what_salq_imports_is_required() -> None:
    used, optional = distributions_of("salq", "app.py", "benchmarks"), set(requirements("requirements-tasks.txt"))
    assert used - optional <= set(requirements("requirements.txt"))


def test_the_optional_extra_is_used_in_one_place_and_is_not_required() -> None:
    """lm-evaluation-harness and what its task files are written in: only the room that runs tasks reaches for them, when it is asked to."""
    assert set(requirements("requirements-tasks.txt")) == {"lm-eval", "pyyaml"}
    assert not set(requirements("requirements-tasks.txt")) & set(requirements("requirements.txt"))
    users = [path.name for path in python_files("salq") if imports(syntax(path)) & {"lm_eval", "yaml"} or '"lm_eval"' in path.read_text("utf-8")]
    assert users == ["tasks.py"]


def test_what_tests_import_is_required() -> None:
    listed = set(requirements("requirements.txt")) | set(requirements("requirements-dev.txt"))
    assert distributions_of("tests", "conftest.py") <= listed
