"""`doctor`: what works is found to work, what does not is said with a fix, and nothing it runs into stops it."""

import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from torch import Tensor

from salq.cli import main
from salq.kernels.linear import QuantLinear
from salq.quant.frozen import FrozenLinear
from salq.runs import health
from salq.runs.health import Check, checks, within, works


def test_this_machine_works(capsys: pytest.CaptureFixture[str], salq_home: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_TOKEN", "hf_SecretSecretSecret")
    assert main(["doctor", "--json"]) == 0
    out = capsys.readouterr().out
    assert "hf_Secret" not in out
    found = {check["name"]: check for check in json.loads(out)["checks"]}
    assert {"python", "torch", "gpu", "cache folder", "disk", "memory", "executor reference", "hub", "models", "runs"} <= set(found)
    assert found["executor reference"]["state"] == "ok"
    assert str(salq_home) in found["cache folder"]["found"]
    assert not [check for check in found.values() if check["state"] == "notice" and "executor" in check["name"] and not check["fix"]]


def test_a_home_that_cannot_be_written_is_a_problem_with_a_fix(
    capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("in the way")
    monkeypatch.setenv("SALQ_HOME", str(tmp_path / "file" / "home"))
    assert main(["doctor"]) == 2
    out = capsys.readouterr().out
    assert "PROBLEM cache folder" in out
    assert "Point SALQ_HOME" in out


def test_a_look_that_breaks_does_not_stop_the_others(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken() -> Iterator[Check]:
        raise RuntimeError("kaputt")
        yield

    monkeypatch.setattr(health, "LOOKS", (broken, health._python))
    found = list(checks())
    assert [check.state for check in found] == ["problem", "ok"]
    assert not works(found)


def test_an_executor_that_reads_its_inputs_in_another_order_is_found_out(monkeypatch: pytest.MonkeyPatch) -> None:
    class Reversed:
        name, device = "reversed", "any"

        def refusal(self, *_: object) -> None:
            return None

        def build(self, linears: list[FrozenLinear], _: object) -> Callable[[Tensor], Tensor]:
            product = QuantLinear(linears[0])
            return lambda x: product(x.flip(-1))

    monkeypatch.setattr("salq.kernels.executors.EXECUTORS", (Reversed(),))
    (check,) = health._executors()
    assert (check.state, check.fix) == ("notice", health.WRONG)


def test_versions_are_compared_with_requirements_and_pins(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(health.settings, "ROOT", tmp_path)
    (tmp_path / "requirements.txt").write_text("numpy>=1 # sums\npydantic>=99\nno-such-package-of-ours>=1\npytest>=1; sys_platform == 'nowhere'\n")
    (tmp_path / "constraints.txt").write_text("numpy==1.0.0\n")
    found = {(check.name, check.state): check.found for check in health._packages()}
    assert "no-such-package-of-ours" in found["packages", "problem"]
    assert "pydantic" in found["versions", "problem"]
    assert "tested with 1.0.0" in found["versions", "notice"]


@pytest.mark.parametrize(
    ("have", "bounds", "inside"),
    [("6.31.0", ">=6.20,<7", True), ("7.0", ">=6.20,<7", False), ("2.13.0+cpu", ">=2.8", True), ("6.3", ">=6.20", False), ("4", "", True)],
)
def test_bounds(have: str, bounds: str, inside: bool) -> None:
    assert within(have, bounds) is inside
