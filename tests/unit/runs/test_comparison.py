"""A comparison of real runs: what is paired, what is said, what is refused; and a report that needs nothing but itself."""

import json
import re
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from salq import recipes
from salq.calibration.engine import matrix_shapes
from salq.core.errors import ConfigError
from salq.core.files import read_json, write_json
from salq.evaluation.paired import Interval
from salq.figures.report import page
from salq.models.llama import Llama
from salq.runs.comparison import Blocks, Comparison, compare, compared
from salq.runs.execute import execute
from salq.runs.noise import Floor, floor_of, keep_floor, known_floor
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.runs.subjects import Subject, subject_of
from salq.runs.verdict import document, sentence
from tests.unit.runs.conftest import SMALL

Finish = Callable[..., str]


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("comparison")


@pytest.fixture(scope="module")
def runs(shared: Path) -> RunStore:
    return RunStore(shared / "runs")


@pytest.fixture(scope="module")
def finish(runs: RunStore, shared: Path, tiny_folder: Path) -> Finish:
    """Run a recipe on the tiny model to its end; returns the id. The same request is run once."""
    text = shared / "text.txt"
    text.write_text("The grid of a group is a scale and a zero point; a code is what is left of a weight. Nobody asked why. " * 60)
    known: dict[str, str] = {}

    def run(recipe: str, bits: int = 2, title: str = "", windows: int = 8) -> str:
        settings = {} if recipe == "rtn" else {**SMALL, "epochs": 6}
        request = CalibrateRequest(
            recipe=recipes.get(recipe, bits=bits, group_size=32, overrides=settings), model=str(tiny_folder), text=str(text), device="cpu",
            title=title, evaluation={"text": str(text), "windows": windows, "window": 32},
        )  # fmt: skip
        key = f"{request.key()} {title}"
        if key not in known:
            known[key] = runs.create(request)
            for _ in execute(runs, known[key]):
                pass
        return known[key]

    return run


def interval_of(comparison: Comparison, name: str) -> Interval:
    assert comparison.differences is not None
    return comparison.differences[name]


def test_calibration_against_rounding_is_one_sentence_with_its_interval_and_blocks(runs: RunStore, finish: Finish) -> None:
    rtn, apiq = finish("rtn", 2), finish("apiq", 2)
    found = compare(runs, rtn, apiq)
    kl = interval_of(found, "kl")
    a, b = found.a.metrics, found.b.metrics
    assert kl.value == pytest.approx(b["kl"] - a["kl"])
    assert interval_of(found, "agrees").value == pytest.approx(b["top1_agreement"] - a["top1_agreement"])
    said = sentence(found)
    if kl.is_decided:
        winner = found.b.title if kl.value < 0 else found.a.title
        assert said.startswith(f"{winner} lowers KL by ")
        assert "95 % interval" in said
    else:
        assert said.startswith("No difference that this text can show")
    mirrored = interval_of(compare(runs, apiq, rtn), "kl")
    assert (mirrored.value, mirrored.low) == pytest.approx((-kl.value, -kl.high), rel=0.2)


def test_far_apart_widths_are_decided(runs: RunStore, finish: Finish) -> None:
    said = sentence(compare(runs, finish("rtn", 2), finish("rtn", 8)))
    assert re.match(r"rtn w8g32 tiny-llama lowers KL by [\d.]+ nats/token, 95 % interval [\d.]+ to [\d.]+, over rtn w2g32 tiny-llama", said)


def test_the_same_request_twice_is_no_difference(runs: RunStore, finish: Finish) -> None:
    one, two = finish("rtn", 3, "first"), finish("rtn", 3, "second")
    assert sentence(compare(runs, one, two)) == "No difference: first and second predict the same in every one of 8 windows."


def test_the_original_and_rounding_by_name(runs: RunStore, finish: Finish, tiny: Llama) -> None:
    rtn, apiq = finish("rtn", 2), finish("apiq", 2)
    by_name, by_id = compare(runs, apiq, "rtn"), compare(runs, apiq, rtn)
    assert by_name.b.run == by_id.b.run == rtn
    against = compare(runs, "original", apiq)
    assert interval_of(against, "kl").value == pytest.approx(against.b.metrics["kl"])
    assert against.a.metrics["perplexity"] == against.b.metrics["perplexity_original"]
    weights = sum(rows * columns for rows, columns in matrix_shapes(tiny).values())
    assert against.a.metrics["size_mb"] == pytest.approx(2 * weights / 1e6)
    assert against.a.metrics["model_size_mb"] == pytest.approx(2 * tiny.parameters / 1e6)
    assert "of KL from the original" in sentence(against)
    assert sentence(compare(runs, apiq, "original")) == sentence(against)
    with pytest.raises(ConfigError, match="--recipe rtn --bits 4"):
        compare(runs, finish("apiq", 4), "rtn")
    for pair in (("original", "rtn"), (rtn, rtn), (rtn, "rtn")):
        with pytest.raises(ConfigError, match="name no run|both sides"):
            compare(runs, *pair)


def test_what_cannot_be_paired_is_one_sentence(runs: RunStore, finish: Finish) -> None:
    a, b = subject_of(runs, finish("rtn", 2)), subject_of(runs, finish("rtn", 8))
    two = subject_of(runs, finish("rtn", 2, windows=2))
    cases = [
        (a, two, "different text"),
        (a, replace(b, model="other"), "different models"),
        (a, replace(b, digests={**b.digests, "model": "0" * 64}), "two different copies"),
        (a, replace(b, digests={**b.digests, "evaluation": "0" * 64}), "different text"),
        (a, replace(b, metrics={**b.metrics, "perplexity_original": 2 * b.metrics["perplexity_original"]}), "same weights"),
        (a, replace(b, metrics={**b.metrics, "per_window": None}), f"{b.run} was finished by an older salq"),
    ]
    for one, other, told in cases:
        with pytest.raises(ConfigError, match=told) as caught:
            compared(runs, one, other)
        assert str(caught.value).endswith(".")
        assert "\n" not in str(caught.value)
    created = runs.create(runs.request(a.run))  # type: ignore[arg-type]
    with pytest.raises(ConfigError, match="no results"):
        compare(runs, created, b.run)
    runs.delete(created)


def test_few_windows_and_broken_losses_get_no_verdict(runs: RunStore, finish: Finish) -> None:
    few = compare(runs, finish("rtn", 2, windows=2), finish("rtn", 8, windows=2))
    assert few.differences is None
    assert "2 windows are too few" in sentence(few)
    a, b = subject_of(runs, finish("rtn", 2)), subject_of(runs, finish("rtn", 8))
    sums = {name: [None, *values[1:]] if name in {"nll", "kl"} else values for name, values in b.metrics["per_window"].items()}
    broken = compared(runs, a, replace(b, metrics={**b.metrics, "per_window": sums, "nonfinite_tokens": 3}))
    assert sentence(broken).startswith(f"No verdict: {b.title} gives losses that are not finite")
    json.dumps(document(broken), allow_nan=False)


LOSS = Interval(-0.01, -0.02, 0.0)


def test_the_sentence_follows_the_interval() -> None:
    """Every case of the sentence, on intervals written by hand."""
    tokens = {"per_window": {"tokens": [1.0] * 8}}
    a, b = (Subject(title, f"20260101-000000-000{number}", "m", tokens) for number, title in enumerate(("ApiQ", "SAPR")))

    def said(kl: Interval, nll: Interval = LOSS, blocks: Blocks | None = None) -> str:
        agrees = Interval(0.0, -0.1, 0.1)
        means = {"kl": kl.value, "nll": nll.value, "agrees": 0.0}
        return sentence(Comparison(a, b, means, {"kl": kl, "nll": nll, "agrees": agrees}, blocks, None, (), None))

    blocks = Blocks((0.2,) * 30, (0.1,) * 24 + (0.3,) * 6)
    assert said(Interval(-0.021, -0.031, -0.011), blocks=blocks) == (
        "SAPR lowers KL by 0.021 nats/token, 95 % interval 0.011 to 0.031, over ApiQ; better in 24 of 30 blocks."
    )
    assert said(Interval(0.021, 0.011, 0.031), blocks=blocks).startswith("ApiQ lowers KL by 0.021 nats/token")
    assert "better in 6 of 30 blocks" in said(Interval(0.021, 0.011, 0.031), blocks=blocks)
    assert said(Interval(-0.02, -0.05, 0.01)).startswith("No difference that this text can show")
    assert said(Interval(-0.02, -0.03, -0.01), Interval(0.1, 0.05, 0.2)).endswith("; yet the log-loss of SAPR on this text is higher.")


def test_the_noise_floor_is_found_again_where_it_was_measured(runs: RunStore, finish: Finish, salq_home: Path) -> None:
    a = subject_of(runs, finish("rtn", 2))
    assert known_floor(a.model, a.metrics) is None
    floor = floor_of(a.model, "the original in bfloat16", {**a.metrics, "kl": 0.001, "top1_agreement": 0.999})
    path = keep_floor(floor)
    assert path.is_relative_to(salq_home)
    assert known_floor(a.model, a.metrics) == floor
    assert known_floor("other", a.metrics) is None
    assert known_floor(a.model, {**a.metrics, "windows": 9}) is None
    assert known_floor(a.model, {**a.metrics, "perplexity_original": 3.0}) is None
    fine = finish("rtn", 8)
    remarks = document(compare(runs, a.run, fine))["remarks"]
    assert any("0.001 nats/token from itself" in remark for remark in remarks)
    assert (runs.metrics(fine)["kl"] <= 0.001) is any(remark.startswith(f"The KL of {runs.get(fine).title}") for remark in remarks)
    write_json(path, {"kl": 1})
    assert known_floor(a.model, a.metrics) is None
    assert set(Floor.__dataclass_fields__) <= {"model", "how", *a.metrics}


EVIL = "</script><script>alert(1)</script><img src=x onerror=alert(1)> \" ' &"


def test_the_report_holds_everything_and_needs_nothing(runs: RunStore, finish: Finish, tiny_folder: Path, tmp_path: Path) -> None:
    value = document(compare(runs, finish("rtn", 2), finish("apiq", 2)))
    assert json.loads(json.dumps(value, allow_nan=False)) == json.loads(json.dumps(value))
    assert str(tiny_folder.parent) not in json.dumps(value)
    html = page({**value, "conversation": {"prompt": EVIL, "sides": [{"title": EVIL, "text": EVIL}], "command": ""}})
    for told in (value["verdict"], "How sure one can be", "Trade-off", "What is stored", "What was asked for", "prefers-color-scheme: dark"):
        assert told in html, told
    assert html.count("<svg") >= 5
    assert "<script" not in html
    assert "<img" not in html
    assert not re.search(r"(?:src|href|url)\s*[=(]", html.replace("&lt;img src=", ""))
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", html)
    small = document(compare(runs, finish("rtn", 2, windows=2), finish("rtn", 8, windows=2)))
    assert "too few" in page(small)
    assert "original" in page(document(compare(runs, "original", finish("rtn", 2))))


def test_titles_are_text_in_the_report(runs: RunStore, finish: Finish) -> None:
    a, b = subject_of(runs, finish("rtn", 2)), subject_of(runs, finish("rtn", 8))
    found: dict[str, Any] = document(compared(runs, replace(a, title=EVIL), b))
    assert "<script" not in page(found)
    assert read_json(runs.folder(a.run) / "metrics.json")["per_window"]
