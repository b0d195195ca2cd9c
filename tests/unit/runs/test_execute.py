"""The life of a run in one process: every end is recorded, nothing finished is lost, and a resumed run has the same codes."""

import errno
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from salq.core import events as ev
from salq.core.progress import fold
from salq.quant.spec import QuantSpec
from salq.runs import work
from salq.runs.execute import execute
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunStore
from tests.unit.runs.conftest import ENDED, MakeRequest, spelled

Codes = Callable[[str], list[bytes]]
METRICS = {
    "perplexity", "perplexity_original", "kl", "bits_per_weight", "size_mb", "model_bits_per_weight", "model_size_mb", "seconds", "peak_memory_gb",
    "text", "windows", "window", "reference",
}  # fmt: skip


@pytest.mark.parametrize("recipe", ["rtn", "apiq", "sapr", "salq", "binary-mos"])
def test_a_whole_run(store: RunStore, make_request: MakeRequest, recipe: str) -> None:
    run_id = store.create(make_request(recipe))
    events = list(execute(store, run_id))
    assert events == store.events(run_id)
    assert ENDED.fullmatch(spelled(events)), spelled(events)
    info = store.get(run_id)
    assert info.status == "done"
    assert set(info.metrics) >= METRICS
    assert info.metrics["perplexity"] > 1
    assert info.metrics["kl"] >= 0
    assert set(fold(events).metrics) >= {"perplexity", "kl", "bits_per_weight", "size_mb", "seconds", "peak_memory_gb"}
    assert (store.folder(run_id) / "environment.json").is_file()
    assert not store.is_alive(run_id)


def test_refreshed_saliency_and_streams_in_files_are_resumed_to_the_same_codes(store: RunStore, make_request: MakeRequest, codes: Codes) -> None:
    plain = store.create(make_request("sapr", {"saliency.refresh": 1, "strength": 1.0}))
    cut = store.create(make_request("sapr", {"saliency.refresh": 1, "strength": 1.0, "data.streams_gb": 1e-9}))
    list(execute(store, plain))
    events = execute(store, cut)
    assert any(isinstance(event, ev.MetricReported) and event.name == "saliency_refresh" for event in events)  # between the blocks
    events.close()
    assert store.finished_blocks(cut) == 1
    resumed = list(execute(store, cut))
    assert ENDED.fullmatch(spelled(resumed)), spelled(resumed)
    assert next(event.value["where"] for event in resumed if isinstance(event, ev.MetricReported) and event.name == "streams") == "disk"
    assert codes(cut) == codes(plain)


def test_matrices_without_a_weight_are_not_measured(store: RunStore, make_request: MakeRequest) -> None:
    request = make_request("binary-mos")
    run_id = store.create(request)
    list(execute(store, run_id))
    asked = ExploreRequest(model=request.model, text=request.text, n_samples=2, seq_len=24, device="cpu", run=run_id)
    *_, last = execute(store, store.create(asked))
    assert isinstance(last, ev.RunFailed)
    assert "no weights to measure" in last.message


@pytest.mark.parametrize("recipe", ["salq", "salq-full"])
def test_the_end_to_end_pass_is_resumed_and_its_blocks_appear_at_once(store: RunStore, make_request: MakeRequest, recipe: str) -> None:
    """A run that is stopped within the pass keeps its finished blocks, shows no half of the result, and ends like one that was not stopped."""
    whole, cut = store.create(make_request(recipe)), store.create(make_request(recipe))
    list(execute(store, whole))
    stream = execute(store, cut)
    for event in stream:
        if isinstance(event, ev.PhaseStep) and (event.phase, event.done) == ("distillation", 2):
            break
    stream.close()
    assert store.get(cut).status == "cancelled"
    assert store.result_folder(cut).name == "blocks"
    events = list(execute(store, cut))
    assert not [event for event in events if isinstance(event, ev.BlockStarted) and not event.stored]
    assert store.result_folder(cut).name == "distilled"
    assert sorted(path.name for path in store.folder(cut).glob("distill*")) == ["distilled"]
    for index in store.blocks(whole).indices():
        one, two, before = store.result(whole).load(index), store.result(cut).load(index), store.blocks(cut).load(index)
        for name, frozen in one.items():
            for part, tensor in frozen.tensors().items():
                assert torch.equal(tensor, two[name].tensors()[part])
        assert any(not torch.equal(one[name].scale, frozen.scale) for name, frozen in before.items())
    assert store.get(cut).metrics["kl"] == store.get(whole).metrics["kl"]


def in_loading(event: ev.Event) -> bool:
    return isinstance(event, ev.PhaseStarted) and event.phase == "load"


def in_first_block(event: ev.Event) -> bool:
    return isinstance(event, ev.StepDone) and (event.block, event.step) == (0, 3)


def after_first_block(event: ev.Event) -> bool:
    return isinstance(event, ev.BlockDone) and event.block == 0


def in_second_block(event: ev.Event) -> bool:
    return isinstance(event, ev.StepDone) and (event.block, event.step) == (1, 5)


def in_evaluation(event: ev.Event) -> bool:
    return isinstance(event, ev.PhaseStep) and event.phase == "evaluation"


def test_cancelled_anywhere_and_resumed_gives_the_same_codes(store: RunStore, make_request: MakeRequest, codes: Codes) -> None:
    request = make_request()
    whole, run_id = store.create(request), store.create(request)
    list(execute(store, whole))
    for is_time in (in_loading, in_first_block, after_first_block, in_second_block, in_evaluation):
        events = execute(store, run_id)
        assert any(is_time(event) for event in events)
        events.close()
        assert store.get(run_id).status == "cancelled"
    list(execute(store, run_id))
    starts = spelled(store.events(run_id)).replace("S", " S").split()
    assert len(starts) == 6
    assert all(ENDED.fullmatch(start) for start in starts), starts
    assert store.get(run_id).status == "done"
    assert codes(run_id) == codes(whole)
    same = {"perplexity", "kl", "size_mb"}
    assert {key: store.metrics(run_id)[key] for key in same} == {key: store.metrics(whole)[key] for key in same}
    assert store.metrics(run_id)["seconds"] > 0


def test_a_wish_to_stop_is_seen_between_events(store: RunStore, make_request: MakeRequest) -> None:
    run_id = store.create(make_request())
    events = execute(store, run_id)
    for event in events:
        if isinstance(event, ev.StepDone):
            store.cancel(run_id)
            break
    assert isinstance(next(events), ev.RunCancelled)
    assert list(events) == []
    assert store.get(run_id).status == "cancelled"


def test_ctrl_c_is_a_cancel(store: RunStore, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def interrupted(*_: object) -> Any:
        yield ev.PhaseStarted("load", 1)
        raise KeyboardInterrupt

    monkeypatch.setattr(work, "perform", interrupted)
    run_id = store.create(make_request())
    assert spelled(execute(store, run_id)) == "SPC"
    assert store.get(run_id).status == "cancelled"


def test_an_interrupt_that_a_library_turned_into_an_error_is_a_cancel(
    store: RunStore, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch
) -> None:
    def lazy_import(*_: object) -> Any:
        try:
            raise KeyboardInterrupt
        except KeyboardInterrupt as error:
            raise ModuleNotFoundError("Could not import module") from error

    monkeypatch.setattr(work, "perform", lazy_import)
    run_id = store.create(make_request())
    assert spelled(execute(store, run_id)) == "SC"


def test_what_the_user_can_fix_ends_the_run_with_a_sentence(store: RunStore, make_request: MakeRequest, tmp_path: Path) -> None:
    short = tmp_path / "short.txt"
    short.write_text("Too short.")
    run_id = store.create(make_request(text=str(short)))
    events = list(execute(store, run_id))
    assert isinstance(events[-1], ev.RunFailed)
    assert (events[-1].error, events[-1].bug) == ("TextError", False)
    assert "tokens" in events[-1].message
    assert store.get(run_id).status == "failed"


def test_a_group_size_that_does_not_divide_is_refused_before_any_work(store: RunStore, make_request: MakeRequest) -> None:
    run_id = store.create(make_request(changes={"group_size": 100}))
    events = list(execute(store, run_id))
    assert spelled(events) == "SF"
    assert "group size 100" in events[-1].message


def test_a_full_disk_fails_the_run_and_keeps_finished_blocks(
    store: RunStore, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch, codes: Codes
) -> None:
    from salq.packing import files as block_files

    save, saved = block_files.save_file, []

    def full_after_one(*args: Any, **kwargs: Any) -> None:
        if saved:
            raise OSError(errno.ENOSPC, "No space left on device")
        saved.append(1)
        save(*args, **kwargs)

    request = make_request()
    run_id, whole = store.create(request), store.create(request)
    monkeypatch.setattr(block_files, "save_file", full_after_one)
    events = list(execute(store, run_id))
    monkeypatch.undo()
    assert isinstance(events[-1], ev.RunFailed)
    assert "No space is left" in events[-1].message
    assert store.finished_blocks(run_id) == 1
    list(execute(store, run_id))
    list(execute(store, whole))
    assert store.get(run_id).status == "done"
    assert codes(run_id) == codes(whole)


def test_a_bug_is_recorded_and_raised(store: RunStore, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object) -> Any:
        raise RuntimeError("kaputt")

    monkeypatch.setattr(work, "perform", broken)
    run_id = store.create(make_request())
    with pytest.raises(RuntimeError, match="kaputt"):
        list(execute(store, run_id))
    last = store.events(run_id)[-1]
    assert isinstance(last, ev.RunFailed)
    assert last.bug
    assert not store.is_alive(run_id)


def test_a_damaged_block_is_computed_again(store: RunStore, make_request: MakeRequest, codes: Codes) -> None:
    run_id = store.create(make_request())
    list(execute(store, run_id))
    before = codes(run_id)
    path = store.blocks(run_id).path(0)
    path.write_bytes(path.read_bytes()[:1000])
    list(execute(store, run_id))
    assert store.get(run_id).status == "done"
    assert codes(run_id) == before


def test_a_changed_text_is_not_mixed_into_a_run(store: RunStore, make_request: MakeRequest, text_file: Path) -> None:
    run_id = store.create(make_request())
    events = execute(store, run_id)
    while not isinstance(next(events), ev.BlockDone):
        pass
    events.close()
    text_file.write_text(text_file.read_text().replace("grid", "lattice"))
    last = list(execute(store, run_id))[-1]
    assert isinstance(last, ev.RunFailed)
    assert "calibration text" in last.message
    assert store.finished_blocks(run_id) == 1


def test_exploring(store: RunStore, tiny_folder: Path, text_file: Path) -> None:
    request = ExploreRequest(
        model=str(tiny_folder), specs=(QuantSpec(bits=2), QuantSpec(bits=4)), n_samples=2, seq_len=24, text=str(text_file), device="cpu"
    )  # fmt: skip
    run_id = store.create(request)
    events = list(execute(store, run_id))
    assert ENDED.fullmatch(spelled(events))
    metrics = store.metrics(run_id)
    assert [grid["tag"] for grid in metrics["errors"]] == ["w2g64", "w4g64"]
    assert metrics["saliency"]["n_samples"] == 2
    assert metrics["text"].startswith("text.txt")


def test_what_cannot_be_explored_is_refused_before_the_saliency_pass(
    store: RunStore, make_request: MakeRequest, tiny_folder: Path, text_file: Path
) -> None:
    about = {"n_samples": 2, "seq_len": 24, "text": str(text_file), "device": "cpu"}
    empty, other = store.create(make_request("rtn")), store.create(make_request("rtn", model="smollm2-135m"))
    for asked, words in (
        ({"specs": (QuantSpec(bits=2, group_size=100),)}, "not a multiple of group size 100"),
        ({"run": empty}, "no finished blocks"),
        ({"run": other}, "no finished blocks"),
        ({"run": "20260101-000000-abcd"}, "does not exist"),
    ):
        events = list(execute(store, store.create(ExploreRequest(model=str(tiny_folder), **about, **asked))))
        assert isinstance(events[-1], ev.RunFailed)
        assert words in events[-1].message
        assert not [event for event in events if isinstance(event, ev.PhaseStarted) and event.phase == "saliency"]
