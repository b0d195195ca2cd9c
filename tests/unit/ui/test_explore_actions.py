"""Explore without a browser: what is drawn, said and asked for, on a real (tiny) model's files."""

import json
from pathlib import Path
from types import SimpleNamespace

import gradio as gr
import pytest

from salq.core.errors import ConfigError, ModelError, SalqError, ShapeError
from salq.evaluation.matrix_view import matrix_view
from salq.models.catalogue import DEFAULT_MODEL
from salq.models.llama import read_weight
from salq.models.source import resolve
from salq.quant.spec import QuantSpec
from salq.runs.execute import execute
from salq.runs.limits import LOCAL, PUBLIC
from salq.runs.reducer import carry_out
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunStore
from salq.ui.context import WHOLE_ROW, Choices
from salq.ui.explore_actions import (
    LINEARS,
    MatrixPicture,
    NotReducedError,
    explore_request,
    is_here,
    matrix_picture,
    n_blocks_of,
    selection_of,
    size_facts,
)
from salq.ui.explore_grid import grid_view
from salq.ui.explore_updates import Drawing
from salq.ui.visitors import SharedStore


@pytest.fixture
def store(salq_home: Path) -> RunStore:
    return RunStore(salq_home / "runs")


def choices(model: str, bits: int = 3, group: int = 64) -> Choices:
    return Choices.of(model, bits, group, False, "cpu", "bundled")


def reduced(store: RunStore, asked: Choices, *what: object) -> MatrixPicture:
    """The picture of a matrix that nobody has looked at yet; what the page leaves to a process of its own is made here."""
    with pytest.raises(NotReducedError) as found:
        matrix_picture(store, asked, *what)  # type: ignore[arg-type]
    carry_out(found.value.wanted)
    return matrix_picture(store, asked, *what)  # type: ignore[arg-type]


@pytest.fixture
def explored(store: RunStore, tiny_folder: Path, tmp_path: Path) -> RunStore:
    text = tmp_path / "my-text.txt"
    text.write_text("A text of its own, long enough for a few windows of bytes. " * 40, encoding="utf-8")
    request = ExploreRequest(
        model=str(tiny_folder), specs=(QuantSpec(bits=3, group_size=64),), text=str(text), n_samples=2, seq_len=32, device="cpu"
    )  # fmt: skip
    list(execute(store, store.create(request)))
    return store


def test_before_any_computation_the_grid_says_what_to_do(store: RunStore, tiny_folder: Path) -> None:
    view = grid_view(store, choices(str(tiny_folder)), "saliency")
    assert view.figure is None
    assert "press Compute" in view.problem
    assert str(tiny_folder) not in view.problem  # a visitor of a shared page need not know where a model lies


def test_the_grid_draws_the_runs_numbers(explored: RunStore, tiny_folder: Path) -> None:
    for metric in ("weight_error", "output_error", "saliency"):
        view = grid_view(explored, choices(str(tiny_folder)), metric)
        assert view.figure is not None
        drawn = json.loads(view.figure)["data"][0]
        assert (len(drawn["z"]), len(drawn["z"][0])) == (7, 2)
        assert view.problem == ""
        assert [row[0] for row in view.table] == [0, 1]
        assert view.header == ["block", *LINEARS]
        assert view.reading.endswith(".")
    assert "my-text" in view.source


def test_a_width_that_is_not_there_is_said_and_the_nearest_shown(explored: RunStore, tiny_folder: Path) -> None:
    view = grid_view(explored, choices(str(tiny_folder), bits=2), "weight_error")
    assert view.figure is not None
    assert "w2g64 is not computed yet; shown is w3g64" in view.problem
    assert grid_view(explored, choices(str(tiny_folder), bits=2), "saliency").problem == ""  # saliency knows no width


def test_a_matrix_is_drawn_from_disk_without_saliency_and_with_it(store: RunStore, tiny_folder: Path, explored: RunStore) -> None:
    empty = RunStore(store.root / "empty")
    alone = reduced(empty, choices(str(tiny_folder)), 1, "mlp.down_proj", "max")
    assert "Compute adds saliency" in alone.problem
    assert [row[0] for row in alone.table] == ["Rounding error"]
    both = reduced(explored, choices(str(tiny_folder)), 1, "mlp.down_proj", "mean")
    assert matrix_picture(explored, choices(str(tiny_folder)), 1, "mlp.down_proj", "max").figure  # the exploration has reduced all of these
    assert both.problem == ""
    figure = json.loads(both.figure or "{}")
    assert [trace["name"] for trace in figure["data"]] == ["Saliency", "Rounding error", "Saliency × error²"]
    assert figure["layout"]["meta"]["how"] == "mean"


def test_the_stated_error_is_that_of_rounding(store: RunStore, tiny_folder: Path) -> None:
    weight = read_weight(resolve(str(tiny_folder)), 0, "self_attn.k_proj")
    want = matrix_view("m", weight, QuantSpec(bits=2, group_size=None)).relative_error
    picture = reduced(store, choices(str(tiny_folder), 2, WHOLE_ROW), 0, "self_attn.k_proj", "p99")
    assert ("Relative weight error", f"{want:.1%}", "rounding to nearest, w2row") in picture.facts


@pytest.mark.parametrize(
    ("block", "matrix", "how"), [(99, "mlp.down_proj", "max"), (-1, "mlp.down_proj", "max"), (0, "lm_head", "max"), (0, "mlp.up_proj", "median")]
)
def test_what_does_not_exist_is_one_sentence(store: RunStore, tiny_folder: Path, block: int, matrix: str, how: str) -> None:
    with pytest.raises(ConfigError):
        matrix_picture(store, choices(str(tiny_folder)), block, matrix, how)


def test_a_group_size_that_does_not_fit_names_what_would(store: RunStore) -> None:
    with pytest.raises(ShapeError, match="use .*32"):
        size_facts(choices(DEFAULT_MODEL, group=128))
    with pytest.raises(ShapeError):
        explore_request(choices(DEFAULT_MODEL, group=128), LOCAL)


def test_sizes_are_given_twice() -> None:
    (first, bits, detail), (second, model_bits, model_detail) = size_facts(choices(DEFAULT_MODEL))
    assert (first, second) == ("Quantized matrices", "Whole model")
    # 3 bits, plus 16 + 3 bits of scale and zero point per group of 64
    assert bits == f"{3 + 19 / 64:.2f} bits per weight"
    assert "scales" in detail
    assert "zero points" in detail
    assert model_bits.endswith("bits per weight")
    assert "of 269 MB in 16 bits" in model_detail


def test_compute_asks_for_the_choice_and_the_reference_widths() -> None:
    request = explore_request(choices(DEFAULT_MODEL, bits=2, group=32), LOCAL)
    assert [spec.tag for spec in request.specs] == ["w2g32", "w8g32", "w4g32", "w3g32"]
    assert request.saliency
    assert request.text == "bundled"


def test_a_public_host_refuses_before_any_work() -> None:
    with pytest.raises(ModelError):
        explore_request(choices("llama-2-7b"), PUBLIC)


SPOT = {"row": 0, "group": 0}


def test_selections_from_the_browser_may_be_anything() -> None:
    assert selection_of(1, "mlp.up_proj", 2) == {"block": 1, "matrix": "mlp.up_proj"}
    assert selection_of("1", "up_proj", 2) == {"block": 1, "matrix": "mlp.up_proj"}
    for block, matrix in ((2, "mlp.up_proj"), (-1, "mlp.up_proj"), (None, "mlp.up_proj"), (0, None), (0, ["x"]), (0, "lm_head"), ({}, {})):
        assert selection_of(block, matrix, 2) is None


def test_blocks_and_presence_of_a_model(tiny_folder: Path) -> None:
    assert n_blocks_of(DEFAULT_MODEL) == 30
    assert n_blocks_of(str(tiny_folder)) == 2
    assert n_blocks_of("nonsense") == 0
    assert is_here(str(tiny_folder))
    assert not is_here("owner/name")


def test_nothing_is_fetched_until_a_matrix_is_asked_for(store: RunStore) -> None:
    ctx = SimpleNamespace(store=store, limits=LOCAL, public=False)
    values = ("llama-2-7b", 3, 64, False, "cpu", "bundled")
    drawing = Drawing(ctx)  # type: ignore[arg-type]
    (updates,) = list(drawing.matrix("", {"block": 0, "matrix": "mlp.down_proj"}, SPOT, "max", "rounding", *values))
    assert "not on this machine yet (about 13.5 GB)" in updates[1]
    (updates,) = list(drawing.matrix("", {"block": 0, "matrix": "mlp.down_proj", "asked": "smollm2-135m"}, SPOT, "max", "rounding", *values))
    assert "not on this machine yet" in updates[1]
    asked = drawing.matrix("", {"block": 0, "matrix": "mlp.down_proj", "asked": "llama-2-7b"}, SPOT, "max", "rounding", *values)
    assert "Fetching llama-2-7b" in next(asked)[1]
    asked.close()


@pytest.mark.filterwarnings("ignore:The value passed into gr.Dropdown")  # an update outside of an event looks like a new control
def test_a_matrix_that_nobody_has_looked_at_is_said_and_made_by_another_process(store: RunStore, tiny_folder: Path) -> None:
    drawing = Drawing(SimpleNamespace(store=store, limits=LOCAL, public=False))  # type: ignore[arg-type]
    made: list[object] = []
    drawing._reducer.reduce = lambda wanted: (made.append(wanted), carry_out(wanted))[0]  # type: ignore[method-assign] - the same, without the process
    values = (str(tiny_folder), 3, 64, False, "cpu", "bundled")
    place = {"block": 1, "matrix": "mlp.up_proj"}
    told, drawn = list(drawing.matrix("", place, SPOT, "max", "rounding", *values))
    assert "Being reduced" in told[1]
    assert "Relative weight error" in drawn[1]
    assert len(made) == 1
    (again,) = list(drawing.matrix("", place, SPOT, "max", "rounding", *values))
    assert again[1] == drawn[1]


def test_a_visitor_of_a_public_host_reads_a_refusal(store: RunStore, tiny_folder: Path) -> None:
    drawing = Drawing(SimpleNamespace(store=store, limits=PUBLIC))  # type: ignore[arg-type]
    values = (str(tiny_folder), 3, 64, False, "cpu", "bundled")
    (updates,) = list(drawing.matrix("", {"block": 0, "matrix": "mlp.down_proj", "asked": str(tiny_folder)}, SPOT, "max", "rounding", *values))
    assert "is not offered on this public host" in updates[1]
    assert "is not offered on this public host" in drawing.grid("", "saliency", "rounding", "none", *values)[2]


def test_choices_refuse_what_the_page_does_not_offer() -> None:
    for values in (("m", 5, 64), ("m", 3, 7), ("", 3, 64), (None, 3, 64)):
        with pytest.raises(SalqError):
            Choices.of(*values, False, "auto", "auto")


def test_a_waiting_computation_says_when_its_turn_comes_and_can_be_pinned(store: RunStore, tiny_folder: Path) -> None:
    drawing = Drawing(SimpleNamespace(store=store, limits=LOCAL, public=False))  # type: ignore[arg-type]
    request = explore_request(choices(str(tiny_folder)), LOCAL)
    first, second = store.create(request), store.create(request)
    store.expect(first, 300.0)
    alive = []
    try:
        for run_id in (first, second):
            alive.append(store.take(run_id, "foreground"))
            store.queue.enter(run_id, "cpu")
        told, *_, pin, finished = drawing.watch(second)
        assert "This computation is waiting for 1 other run, starts in about 5 min." in told
        assert (pin.value, pin.visible, finished) == ("Pin these results", True, gr.skip())
        drawing.pin(second)
        told, *_, pin, _ = drawing.watch(second)
        assert "It is pinned." in told
        assert pin.value == "Unpin these results"
        drawing.pin(second)
        assert not store.get(second).pinned
    finally:
        for one in alive:
            one.release()
    shared = SharedStore(store.root)
    with pytest.raises(ConfigError, match="not pinned by visitors"):
        shared.pin(second, pinned=True)
