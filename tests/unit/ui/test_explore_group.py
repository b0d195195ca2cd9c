"""One group, the depth, sizes and budgets without a browser, on a real (tiny) model, a real run of it, and damaged ones."""

import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file

from salq import recipes
from salq.models.catalogue import DEFAULT_MODEL
from salq.models.llama import read_weight
from salq.models.source import resolve
from salq.models.tiny import save_tiny
from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec
from salq.runs.execute import execute
from salq.runs.limits import LOCAL
from salq.runs.reducer import carry_out
from salq.runs.requests import CalibrateRequest, Evaluation, ExploreRequest
from salq.runs.store import RunStore
from salq.ui.context import WHOLE_ROW, Choices
from salq.ui.explore_actions import NotReducedError, explore_request, known_config, matrix_picture
from salq.ui.explore_charts import budget_chart, depth_chart, made_by_note, size_chart
from salq.ui.explore_grid import grid_view
from salq.ui.explore_group import group_of, group_picture, kept_group_picture
from salq.ui.explore_subject import NOTHING, ROUNDING, subjects
from salq.ui.explore_updates import Drawing
from salq.ui.page import first_selection

PLACE = {"block": 1, "matrix": "mlp.down_proj", "row": 5, "group": 1}


def choices(model: str, bits: int = 3, group: int = 64) -> Choices:
    return Choices.of(model, bits, group, False, "cpu", "bundled")


def drawn(figure: str | None) -> list[dict[str, Any]]:
    assert figure is not None
    return json.loads(figure)["data"]


@pytest.fixture(scope="module")
def home(tmp_path_factory: pytest.TempPathFactory, tiny_folder: Path) -> tuple[Path, str]:
    """(home, run id): a home with a calibration of the tiny model, and an exploration that measured it."""
    home = tmp_path_factory.mktemp("explored")
    text = home / "text.txt"
    text.write_text("A text of its own, long enough for a few windows of bytes. " * 40, encoding="utf-8")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("SALQ_HOME", str(home))
        patch.setenv("HF_HUB_OFFLINE", "1")
        store = RunStore(home / "runs")
        changes = {"rank": 2, "epochs": 1, "batch_size": 1, "data.n_samples": 2, "data.seq_len": 24}
        recipe = recipes.get("apiq", bits=3, group_size=64, overrides=changes)
        evaluation = Evaluation(text=str(text), windows=2, window=32)
        run = store.create(CalibrateRequest(model=str(tiny_folder), recipe=recipe, text=str(text), device="cpu", evaluation=evaluation))
        list(execute(store, run))
        specs = tuple(QuantSpec(bits=bits, group_size=64) for bits in (3, 8, 4, 2))  # type: ignore[arg-type]
        asked = ExploreRequest(model=str(tiny_folder), specs=specs, text=str(text), n_samples=2, seq_len=24, device="cpu", run=run)
        explored = store.create(asked)
        list(execute(store, explored))
        assert store.get(explored).status == "done", store.get(explored).problem
    return home, run


@pytest.fixture
def store(home: tuple[Path, str], monkeypatch: pytest.MonkeyPatch) -> RunStore:
    monkeypatch.setenv("SALQ_HOME", str(home[0]))
    return RunStore(home[0] / "runs")


def test_the_number_line_holds_the_groups_own_weights_and_levels(store: RunStore, tiny_folder: Path) -> None:
    picture = group_picture(store, choices(str(tiny_folder)), PLACE)
    weight = read_weight(resolve(str(tiny_folder)), 1, "mlp.down_proj")
    made = rtn(weight, QuantSpec(bits=3, group_size=64))
    dots = drawn(picture.line.figure)[2]
    assert dots["x"] == pytest.approx(weight[5, 64:128].tolist())
    ticks = drawn(picture.line.figure)[1]["x"]
    levels = [(code - int(made.zero_point[5, 1])) * float(made.scale[5, 1]) for code in range(8)]
    assert ticks[::3] == pytest.approx(levels)
    assert [row[2] for row in picture.line.table] == made.codes[5, 64:128].tolist()
    assert (picture.row, picture.group, picture.rows, picture.groups) == (5, 1, *(weight.shape[0], weight.shape[1] // 64))
    assert "row 5, group 1" in picture.facts[0][1]
    tile = drawn(picture.tile)
    assert len(tile) == 3
    assert sum(int(row[2]) for row in picture.histogram.table) == weight.numel()


def test_a_calibrated_run_adds_its_learned_grid(store: RunStore, home: tuple[Path, str], tiny_folder: Path) -> None:
    picture = group_picture(store, choices(str(tiny_folder)), PLACE, home[1])
    frozen = store.result(home[1]).load(1)["mlp.down_proj"]
    assert len(drawn(picture.line.figure)) == 6
    assert [row[4] for row in picture.line.table] == frozen.codes[5, 64:128].tolist()
    assert [float(row[5]) for row in picture.line.table] == pytest.approx(frozen.effective_weight()[5, 64:128].tolist(), rel=1e-3, abs=1e-6)
    assert "learned by" in picture.facts[-1][0].lower()
    assert "adapter of rank 2" in json.loads(picture.line.figure or "")["layout"]["annotations"][1]["text"]
    against = group_picture(store, choices(str(tiny_folder)), PLACE, ROUNDING, home[1])
    assert len(drawn(against.line.figure)) == 6


def test_a_minus_b_subtracts_the_two_grids(store: RunStore, home: tuple[Path, str], tiny_folder: Path) -> None:
    asked = choices(str(tiny_folder))
    for metric in ("weight_error", "output_error", "weighted_error"):
        a, b, both = (grid_view(store, asked, metric, *who) for who in ((home[1], NOTHING), (ROUNDING, NOTHING), (home[1], ROUNDING)))
        assert both.problem == ""
        for row, one, other in zip(both.table, a.table, b.table, strict=True):
            assert row[1:] == pytest.approx(
                [x - y for x, y in zip(one[1:], other[1:], strict=True)], rel=1e-2, abs=1e-3 * max(one[1:])
            )  # the tables have four digits
        assert "has the smaller" in both.reading
    same = grid_view(store, asked, "weight_error", ROUNDING, ROUNDING)
    assert all(value == 0 for row in same.table for value in row[1:])
    assert "the same for A and B" in grid_view(store, asked, "saliency", home[1], ROUNDING).problem


def test_what_is_not_measured_or_not_there_is_said(store: RunStore, home: tuple[Path, str], tiny_folder: Path) -> None:
    asked = choices(str(tiny_folder))
    gone = grid_view(store, asked, "output_error", "20200101-000000-abcd")
    assert gone.figure is None
    assert "not here any more" in gone.problem
    assert "not here any more" in made_by_note(store, asked, "20200101-000000-abcd")
    picture = group_picture(store, asked, PLACE, "20200101-000000-abcd")
    assert len(drawn(picture.line.figure)) == 3  # rounding alone
    assert matrix_picture(store, asked, 1, "mlp.down_proj", "max", "20200101-000000-abcd").figure


def test_a_run_without_its_block_says_so_and_the_rest_is_there(
    home: tuple[Path, str], tiny_folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import shutil

    copied = tmp_path / "copy"
    shutil.copytree(home[0], copied)
    monkeypatch.setenv("SALQ_HOME", str(copied))
    store = RunStore(copied / "runs")
    (store.result_folder(home[1]) / "001.safetensors").write_bytes(b"half")
    picture = group_picture(store, choices(str(tiny_folder)), PLACE, home[1])
    assert len(drawn(picture.line.figure)) == 3
    assert "Block 1 of this run is not on this machine" in picture.line.problem
    assert len(drawn(group_picture(store, choices(str(tiny_folder)), {**PLACE, "block": 0}, home[1]).line.figure)) == 6


def test_places_beyond_the_matrix_are_clipped_and_nonsense_is_none(store: RunStore, tiny_folder: Path) -> None:
    picture = group_picture(store, choices(str(tiny_folder)), {**PLACE, "row": 10**6, "group": 10**6})
    assert (picture.row, picture.group) == (picture.rows - 1, picture.groups - 1)
    whole = group_picture(store, choices(str(tiny_folder), group=WHOLE_ROW), {**PLACE, "group": 3})
    assert (whole.group, whole.groups) == (0, 1)
    for row, group in ((None, 1), ("x", 1), (-1, 0), (1, 2**40), ([], {})):
        assert group_of(row, group) is None
    assert group_of("3", 4.0) == {"row": 3, "group": 4}


def test_a_damaged_weight_is_told_and_its_neighbours_are_drawn(store: RunStore, tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "broken", "smollm2-135m", seed=1)
    path = next(folder.glob("*.safetensors"))
    tensors = load_file(path)
    name = "model.layers.1.mlp.down_proj.weight"
    tensors[name][5, 70] = torch.nan
    save_file(tensors, path, metadata={"format": "pt"})
    asked = choices(str(folder))
    picture = group_picture(store, asked, PLACE)
    assert picture.line.figure is None
    assert "1 of the 64 weights of this group are NaN or infinite" in picture.line.problem
    assert picture.tile is not None
    assert group_picture(store, asked, {**PLACE, "group": 0}).line.figure is not None
    with pytest.raises(NotReducedError) as missing:
        matrix_picture(store, asked, 1, "mlp.down_proj", "max")
    carry_out(missing.value.wanted)
    seen = matrix_picture(store, asked, 1, "mlp.down_proj", "max")
    assert seen.figure is not None
    assert "1 weights of this matrix are NaN or infinite" in seen.problem
    assert "not finite" in seen.spectrum.problem


def test_depth_sizes_and_budget_of_the_explored_model(store: RunStore, home: tuple[Path, str], tiny_folder: Path) -> None:
    asked = choices(str(tiny_folder))
    depth = depth_chart(store, asked, home[1], NOTHING, 1)
    assert len(drawn(depth.figure)) == 4
    assert len(depth.table) == 2
    size = size_chart(store, asked, known_config(str(tiny_folder)), home[1], NOTHING)
    assert any(float(row[4]) > 0 for row in size.table)  # the run's adapters
    budget = budget_chart(store, asked, known_config(str(tiny_folder)), None)
    assert budget.low < budget.mb < budget.high
    assert len(budget.curve.table) == 2 * 7
    assert "This is a prediction" in budget.curve.reading
    least = budget_chart(store, asked, known_config(str(tiny_folder)), budget.low)
    assert all(row[-1] == 2 for row in least.curve.table)
    most = budget_chart(store, asked, known_config(str(tiny_folder)), budget.high)
    assert all(row[-1] == 8 for row in most.curve.table)
    assert budget_chart(store, asked, known_config(str(tiny_folder)), 1e6).mb == budget.mb  # another model's budget
    assert "press Compute" in budget_chart(store, choices(str(tiny_folder), group=32), known_config(str(tiny_folder)), None).curve.problem
    assert "press Compute" in depth_chart(store, choices(str(tiny_folder), group=32), ROUNDING, NOTHING, 0).problem


def test_pickers_offer_finished_runs_of_this_model_only(store: RunStore, home: tuple[Path, str], tiny_folder: Path) -> None:
    assert [value for _, value in subjects(store, str(tiny_folder))] == [ROUNDING, home[1]]
    assert home[1] not in [value for _, value in subjects(store, DEFAULT_MODEL)]
    ctx = SimpleNamespace(store=store, limits=LOCAL)
    a, b = Drawing(ctx).subjects(home[1], "20200101-000000-abcd", str(tiny_folder))  # type: ignore[arg-type]
    assert "value" not in a.constructor_args  # it exists: left alone
    assert b.constructor_args["value"] == NOTHING
    request = explore_request(choices(str(tiny_folder)), LOCAL, home[1])
    assert request.run == home[1]


def test_the_first_paint_shows_the_kept_group(salq_home: Path) -> None:
    asked, (selection, spot) = choices(DEFAULT_MODEL), first_selection(DEFAULT_MODEL)
    picture = kept_group_picture(asked, {**selection, **spot})
    assert picture.line.figure is not None
    assert len(picture.line.table) == 64
    assert kept_group_picture(asked, {**selection, **spot, "row": 3}).line.figure is None
