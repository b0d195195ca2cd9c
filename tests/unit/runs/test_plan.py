"""What an exploration is expected to take: more for more text and more grids, nothing for what is not asked for."""

import pytest

from salq.core.errors import ConfigError
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
from salq.quant.spec import QuantSpec
from salq.runs.plan import exploring_seconds, exploring_shares
from salq.runs.requests import ExploreRequest

CONFIG = dict(CATALOGUE[DEFAULT_MODEL].config)
SPECS = tuple(QuantSpec(bits=bits, group_size=64) for bits in (2, 3))  # type: ignore[arg-type]


def request(**changed: object) -> ExploreRequest:
    values = {"model": DEFAULT_MODEL, "specs": SPECS, "n_samples": 8, "seq_len": 128, "device": "cpu"}
    return ExploreRequest.model_validate(values | changed)


def test_twice_the_text_takes_twice_as_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salq.runs.plan.machine_speed", lambda *_: (1e11, 1e10))  # the machine's own speed may change between two looks
    one = exploring_seconds(request(), CONFIG)
    assert exploring_seconds(request(n_samples=16), CONFIG) == pytest.approx(2 * one)
    assert exploring_seconds(request(specs=SPECS[:1]), CONFIG) < one
    assert exploring_seconds(request(saliency=False), CONFIG) < one


def test_what_is_not_asked_for_takes_no_share() -> None:
    assert exploring_shares(request(specs=()))["errors"] == exploring_shares(request(specs=()))["maps"] == 0
    assert exploring_shares(request(saliency=False))["saliency"] == 0


def test_a_device_that_is_not_there_is_told_before_the_run_exists() -> None:
    with pytest.raises(ConfigError):
        exploring_seconds(request(device="cuda:99"), CONFIG)
