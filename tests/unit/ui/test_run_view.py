"""What Calibrate shows of a run: the fold of its events, told in words, figures and tables, for one visitor or many."""

import json
import os
import time
from pathlib import Path

import pytest

from salq import recipes
from salq.core import events as ev
from salq.core.errors import UnknownNameError
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import RunStore
from salq.ui.calibrate_panel import updates
from salq.ui.run_view import (
    RunView,
    Watcher,
    errors_figure,
    errors_table,
    loss_figure,
    result_facts,
    run_to_show,
    words_of,
)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def new_run(store: RunStore, title: str = "") -> str:
    return store.create(CalibrateRequest(model="smollm2-135m", recipe=recipes.get("sapr"), title=title))


def add(store: RunStore, run_id: str, *events: ev.Event) -> None:
    for event in events:
        store.append(run_id, event)


def steps(block: int, count: int, stage: str = "mixed") -> list[ev.Event]:
    return [ev.StepDone(block, stage, step, count, {"output": 1.0 / step, "weight_saliency": 0.1}) for step in range(1, count + 1)]


DETAILS = {"output_at_start": 1.7, "loss.output": 1.6, "gradient.output.clipping": 0.25, "gradient.output.adapter": 0.1}
STARTED = (ev.PhaseStarted("calibration", of=3), ev.BlockStarted(0, of=3))


def test_the_view_grows_with_the_run(store: RunStore) -> None:
    run_id, watcher = new_run(store), Watcher(store)
    first = watcher.view(run_id)
    assert (loss_figure(first, None), errors_figure(first), errors_table(first), first.blocks) == (None, None, [], [])
    add(store, run_id, ev.RunStarted(run_id), *STARTED, *steps(0, 5))
    second = watcher.view(run_id)
    assert second.stamp != first.stamp
    assert second.blocks == [0]
    assert errors_figure(second) is None
    figure = json.loads(loss_figure(second, None) or "")
    assert [trace["name"] for trace in figure["data"]] == ["output", "weight_saliency"]
    add(store, run_id, ev.BlockDone(0, 0.25, {"mlp.down_proj": 0.1, "mlp.up_proj": 0.3}, 1.5, DETAILS), ev.BlockStarted(1, of=3), *steps(1, 2))
    third = watcher.view(run_id)
    assert errors_table(third) == [[0, 0.25, 0.2, 1.1, 0.3, "output 1.6, gradient clipping 0.25, adapter 0.1"]]
    assert json.loads(errors_figure(third) or "")["layout"]["xaxis"]["range"] == [-0.5, 2.5]
    assert third.blocks == [0, 1]
    assert "Block 0" in json.loads(loss_figure(third, 0) or "")["layout"]["title"]["text"]
    assert "Block 1" in json.loads(loss_figure(third, None) or "")["layout"]["title"]["text"]
    assert [line.split("  ")[1] for line in third.log] == ["started", "calibration: 3 blocks", "block 0 done in 2 s, relative output error 0.25"]


def test_a_part_has_another_stamp_only_when_it_is_another_one(store: RunStore) -> None:
    run_id, watcher = new_run(store), Watcher(store)
    add(store, run_id, ev.RunStarted(run_id), *STARTED, *steps(0, 3))
    first, same = watcher.view(run_id), watcher.view(run_id)
    assert first.stamps(None) == same.stamps(None)
    add(store, run_id, *steps(0, 3))
    later = watcher.view(run_id)
    assert {part for part, stamp in later.stamps(None).items() if stamp != first.stamps(None)[part]} == {"headline", "loss"}
    add(store, run_id, ev.RunDone(5.0))
    done = watcher.view(run_id)
    assert {part for part, stamp in done.stamps(None).items() if stamp != later.stamps(None)[part]} == {"headline", "state", "log"}


def test_a_view_does_not_change_behind_its_reader(store: RunStore) -> None:
    run_id, watcher = new_run(store), Watcher(store)
    add(store, run_id, ev.RunStarted(run_id), *STARTED, *steps(0, 3))
    old = watcher.view(run_id)
    before = loss_figure(old, 0)
    add(store, run_id, *steps(0, 3))
    watcher.view(run_id)
    assert loss_figure(old, 0) == before


def test_a_recipe_without_text_shows_weight_errors(store: RunStore) -> None:
    run_id = new_run(store)
    add(store, run_id, ev.RunStarted(run_id), *STARTED, ev.BlockDone(0, None, {"mlp.down_proj": 0.2}, 0.1))
    figure = json.loads(errors_figure(Watcher(store).view(run_id)) or "")
    assert "weight error" in figure["layout"]["title"]["text"]
    assert figure["data"][0]["y"][0] == pytest.approx(0.2)


def test_an_unknown_run_raises(store: RunStore) -> None:
    with pytest.raises(UnknownNameError):
        Watcher(store).view("20260101-000000-abcd")


def test_only_so_many_runs_are_kept_in_memory(store: RunStore) -> None:
    watcher = Watcher(store)
    for run_id in [new_run(store, f"run {index}") for index in range(Watcher.RUNS + 3)]:
        watcher.view(run_id)
    assert len(watcher._seen) == Watcher.RUNS


def test_which_run_a_page_shows(store: RunStore) -> None:
    own, explored = new_run(store, "mine"), store.create(ExploreRequest(model="smollm2-135m"))
    assert run_to_show(store, own, public=False) == own
    assert run_to_show(store, "", public=False) == ""
    assert run_to_show(store, explored, public=False) == ""
    for forged in ("../../etc", "20260101-000000-abcd", "x" * 500):
        assert run_to_show(store, forged, public=False) == ""
    running = new_run(store, "at work")
    alive = store.take(running, "worker")
    store.append(running, ev.RunStarted(running))
    assert run_to_show(store, "", public=False) == running
    assert run_to_show(store, own, public=False) == own
    assert run_to_show(store, "", public=True) == ""
    alive.release()


def test_frequent_events_are_not_told() -> None:
    assert words_of(ev.StepDone(0, "mixed", 1, 2, {"output": 1.0}, at=1.0)) == ""
    assert words_of(ev.PhaseStep("load", 1, at=1.0)) == ""
    assert words_of(ev.RunFailed("No space is left.", at=1.0)).endswith("failed: No space is left.")


def test_numbers_say_where_they_come_from() -> None:
    metrics = {
        "perplexity": 41.2, "perplexity_se": 1.0, "perplexity_original": 22.6, "kl": 0.5, "kl_median": 0.3, "top1_agreement": 0.62,
        "bits_per_weight": 3.5, "size_mb": 50.0, "model_size_mb": 100.0, "seconds": 240, "peak_memory_gb": 1.2,
        "text": "bundled", "windows": 8, "window": 512,
        "n_blocks": 2, "of_blocks": 30, "reference": "reference reconstructed from a 4-bit file",
    }  # fmt: skip
    facts, note = result_facts(metrics)
    assert [name for name, _, _ in facts] == ["Perplexity", "KL from the original", "Same first choice", "Size", "Took"]
    assert "8 windows of 512 tokens" in note
    assert "first 2 of 30 blocks" in note
    assert "4-bit file" in note
    assert result_facts({}) == ([], "")
    broken, _ = result_facts({**metrics, "perplexity": None, "kl": None})
    assert broken[0][1] == "not finite"


def test_what_a_run_without_news_asks_for_depends_on_whether_it_was_told_to_stop(store: RunStore) -> None:
    run_id, watcher = new_run(store), Watcher(store)
    held = store.take(run_id, "foreground")
    add(store, run_id, ev.RunStarted(run_id), *STARTED)
    quiet = time.time() - 1000
    os.utime(store.folder(run_id) / "events.jsonl", (quiet, quiet))
    headline, buttons = shown(watcher.view(run_id), own=True)
    assert "no news for 17 min; if it hangs, Cancel ends it" in headline
    assert buttons == [True, False]
    assert shown(watcher.view(run_id), own=False)[1] == [False, False]  # another visitor's
    store.cancel(run_id)
    os.utime(store.folder(run_id) / "events.jsonl", (quiet, quiet))
    assert "end it in the terminal that it was started in" in shown(watcher.view(run_id), own=True)[0]
    held.release()


def shown(view: RunView, *, own: bool) -> tuple[str, list[bool]]:
    """The panel's headline, and whether Cancel and Resume are there."""
    headline, _, cancel, again, *_ = updates(view, None, {}, lambda: "", own=own)
    return str(headline), [cancel.visible, again.visible]
