"""Links come from anywhere: every part is checked on its own, a bad one is named and left out, nothing else is lost."""

from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from salq import recipes
from salq.models.catalogue import DEFAULT_MODEL
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import RunStore
from salq.ui.links import Link, read_link


@pytest.fixture
def store(salq_home: Path) -> RunStore:
    return RunStore(salq_home / "runs")


def read(store: RunStore, *, public: bool = False, **query: str) -> Link:
    return read_link(query, store, default_model=DEFAULT_MODEL, public=public)


def test_a_good_link_is_followed_in_every_part(store: RunStore) -> None:
    run = store.create(ExploreRequest(model=DEFAULT_MODEL))
    link = read(store, model="llama-2-7b", bits="2", run=run, block="31", matrix="q_proj", tab="explore")
    assert link == Link("llama-2-7b", 2, {"block": 31, "matrix": "self_attn.q_proj"}, None, run, "explore")


def test_an_empty_link_changes_nothing(store: RunStore) -> None:
    assert read(store) == Link()


def test_a_selection_opens_explore(store: RunStore) -> None:
    assert read(store, block="3").tab == "explore"
    assert read(store, block="3").selection == {"block": 3, "matrix": "mlp.down_proj"}


def test_a_run_opens_the_tab_that_shows_it(store: RunStore) -> None:
    assert read(store, run=store.create(ExploreRequest(model=DEFAULT_MODEL))).tab == "explore"
    assert read(store, run=store.create(CalibrateRequest(model=DEFAULT_MODEL, recipe=recipes.get("rtn")))).tab == "calibrate"


@pytest.mark.parametrize(
    ("part", "value", "named"),
    [
        ("model", "../../etc/passwd", "model"),
        ("model", "/tmp", "model"),
        ("bits", "5", "bits"),
        ("run", "../x", "run"),
        ("run", "20200101-000000-abcd", "run"),
        ("block", "30", "block or matrix"),
        ("block", "-1", "block or matrix"),
        ("block", "1e9", "block or matrix"),
        ("matrix", "lm_head", "block or matrix"),
        ("tab", "<script>", "tab"),
    ],
)
def test_a_bad_part_is_named_and_the_rest_followed(store: RunStore, part: str, value: str, named: str) -> None:
    good = {"bits": "4"} if part != "bits" else {"model": "smollm2-360m"}
    link = read(store, **{part: value, **good})
    assert named in link.problem
    assert (link.bits, link.model) == ((4, None) if part != "bits" else (None, "smollm2-360m"))


def test_hub_ids_are_for_local_pages_only(store: RunStore) -> None:
    assert read(store, model="owner/name").model == "owner/name"
    assert read(store, public=True, model="owner/name").model is None


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.dictionaries(st.sampled_from(["model", "bits", "run", "block", "matrix", "tab", "x"]), st.text(max_size=40), max_size=6))
def test_any_link_is_answered(query: dict[str, str]) -> None:
    link = read_link(query, RunStore(Path("does-not-exist")), default_model=DEFAULT_MODEL, public=True)
    assert link.run is None
    assert link.bits in {None, 2, 3, 4, 8}


def test_a_group_belongs_to_the_selection(store: RunStore) -> None:
    link = read(store, block="3", group="100,10")
    assert (link.selection, link.spot) == ({"block": 3, "matrix": "mlp.down_proj"}, {"row": 100, "group": 10})
    for bad in ("5", "1,2,3", "-1,0", "x,y", "1e3,0", "99999999999,0", ""):
        link = read(store, block="3", group=bad)
        assert "group" in link.problem
        assert link.selection == {"block": 3, "matrix": "mlp.down_proj"}


def test_runs_to_compare_and_the_value_are_checked(store: RunStore) -> None:
    link = read(store, tab="explore", minus="rounding", value="weighted_error")
    assert (link.minus, link.value, link.problem) == ("rounding", "weighted_error", "")
    link = read(store, tab="explore", minus="../../x", value="beauty")
    assert (link.minus, link.value) == (None, None)
    assert "minus" in link.problem
    assert "value" in link.problem
