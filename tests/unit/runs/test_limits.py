"""What a host lets a visitor ask for, and what a plan refuses before weights are read."""

from pathlib import Path
from typing import Any

import pytest

from salq.core.errors import ConfigError, ModelError, ResourceError, SalqError, ShapeError, TextError
from salq.models.catalogue import CATALOGUE
from salq.models.shapes import linear_shapes
from salq.quant.spec import QuantSpec
from salq.runs.limits import LOCAL, PUBLIC, Limits, check
from salq.runs.plan import check_room, config_of, plan
from salq.runs.requests import CalibrateRequest, ExploreRequest, parse
from tests.unit.runs.conftest import MakeRequest

QUICK: dict[str, Any] = {
    "name": "apiq",
    "spec": {"bits": 3, "group_size": 64},
    "data": {"n_samples": 32, "seq_len": 256},
    "stages": [{"epochs": 6}],
    "adapter": {"rank": 8, "alpha": 16.0},
}


def request(**fields: Any) -> CalibrateRequest:
    return CalibrateRequest(**{"model": "smollm2-135m", "recipe": QUICK, **fields})


def test_the_default_is_allowed_everywhere() -> None:
    PUBLIC.check(request())
    LOCAL.check(request())
    PUBLIC.check(ExploreRequest(model="smollm2-135m", specs=(QuantSpec(),)))


@pytest.mark.parametrize(
    ("asked", "kind", "words"),
    [
        (request(model="meta/other"), ModelError, "not offered on this public host"),
        (request(model="llama-2-7b"), ModelError, "above the limit of 400 M"),
        (request(model="/etc"), ModelError, "not offered"),
        (request(text="/etc/passwd"), TextError, "not offered"),
        (request(evaluation={"text": "../secret"}), TextError, "not offered"),
        (request(evaluation={"windows": 33}), ConfigError, "windows is 33"),
        (request(recipe={**QUICK, "data": {"n_samples": 65, "seq_len": 8}}), ConfigError, "n_samples is 65"),
        (request(recipe={**QUICK, "data": {"n_samples": 64, "seq_len": 513}}), ConfigError, "seq_len"),
        (request(recipe={**QUICK, "saliency": {"n_samples": 64, "seq_len": 513}}), ConfigError, "saliency.seq_len"),
        (request(recipe={**QUICK, "stages": [{"epochs": 21}]}), ConfigError, "epochs is 21"),
        (request(recipe={**QUICK, "adapter": {"rank": 65}}), ConfigError, "rank is 65"),
        (request(device="cuda:0; rm -rf /"), ConfigError, "Device"),
        (ExploreRequest(model="smollm2-135m", n_samples=65), ConfigError, "n_samples is 65"),
    ],
)
def test_a_public_host_refuses_with_the_bound(asked: CalibrateRequest, kind: type[SalqError], words: str) -> None:
    with pytest.raises(kind, match=words) as caught:
        PUBLIC.check(asked)
    assert str(caught.value).endswith(".")


@pytest.mark.parametrize(("name", "value"), [("SPACE_ID", "someone/salq"), ("SALQ_PUBLIC", "1")])
def test_the_host_decides(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    assert Limits.here() is LOCAL
    check(request(model="meta/other"))
    monkeypatch.setenv(name, value)
    assert Limits.here() is PUBLIC
    with pytest.raises(ModelError):
        check(request(model="meta/other"))


@pytest.mark.parametrize(
    "value",
    [
        {"kind": "calibrate"},
        {"kind": "calibrate", "model": "m", "recipe": 3},
        {"kind": "calibrate", "model": "m", "recipe": QUICK, "surprise": 1},
        {"kind": "calibrate", "model": "m", "recipe": QUICK, "seed": -1},
        {"kind": "calibrate", "model": "m", "recipe": QUICK, "n_blocks": 0},
        {"kind": "calibrate", "model": "", "recipe": QUICK},
        {"kind": "calibrate", "model": "m", "recipe": QUICK, "evaluation": {"windows": 10**9}},
        {"kind": "explore", "model": "m", "specs": [{"bits": 5}]},
        {"kind": "explore", "model": "m", "n_samples": 0},
        {},
    ],
)
def test_what_is_no_request_is_one_sentence(value: dict[str, Any]) -> None:
    with pytest.raises(ConfigError, match="The request is not valid") as caught:
        parse(value)
    assert "\n" not in str(caught.value)


def test_a_recipe_that_this_version_does_not_know() -> None:
    with pytest.raises(ConfigError, match="recipe of this request"):
        _ = request(recipe={**QUICK, "surprise": 1}).recipe


@pytest.mark.parametrize("name", list(CATALOGUE))
def test_a_plan_for_every_catalogue_model_without_a_download(name: str, make_request: MakeRequest) -> None:
    planned = plan(make_request("sapr").model_copy(update={"model": name}))
    assert planned.n_blocks == CATALOGUE[name].config["num_hidden_layers"]
    assert planned.estimate.seconds > 0
    assert planned.size.size_mb < planned.size.model_size_mb


def test_shapes_are_those_of_the_model(tiny: Any, tiny_folder: Path) -> None:
    shapes = linear_shapes(config_of(str(tiny_folder)), tiny.n_blocks)
    real = {f"{block}.{name}": tuple(linear.weight.shape) for block in range(tiny.n_blocks) for name, linear in tiny.linears(block).items()}
    assert shapes == real


def test_refused_by_the_plan(make_request: MakeRequest) -> None:
    with pytest.raises(ShapeError, match="in_features 192 is not a multiple"):
        plan(make_request(changes={"group_size": 100}))
    with pytest.raises(ShapeError, match="rank 100 is larger"):
        plan(make_request(changes={"rank": 100}))


def test_no_room(make_request: MakeRequest, tmp_path: Path) -> None:
    huge = make_request("rtn").model_copy(update={"model": "llama-2-13b"})
    planned = plan(huge)
    with pytest.raises(ResourceError) as caught:
        check_room(planned, "llama-2-13b", tmp_path / "not" / "there")
    assert "GB" in str(caught.value)
