"""A quota removes the oldest finished runs, never one that is pinned, unfinished or worked on, and says so when that is not enough."""

from collections.abc import Callable

import pytest

from salq.core import events as ev
from salq.core.errors import ResourceError
from salq.runs import store as store_module
from salq.runs.quota import make_room, size_of, tidy
from salq.runs.store import RunStore
from tests.unit.runs.conftest import MakeRequest

RUN_BYTES = 1_000_000


@pytest.fixture
def finished(store: RunStore, make_request: MakeRequest, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Store a run of a megabyte that ended in some way; each is older than the next."""
    names = iter(f"2026010{number}-000000-abcd" for number in range(1, 10))
    monkeypatch.setattr(store_module.RunStore, "_new_id", lambda _: next(names))

    def make(*ends: ev.Event) -> str:
        run_id = store.create(make_request("rtn"))
        (store.folder(run_id) / "filler").write_bytes(bytes(RUN_BYTES))
        for event in (ev.RunStarted(run_id), *ends):
            store.append(run_id, event)
        return run_id

    return make


def test_the_oldest_finished_runs_go_first(store: RunStore, finished: Callable[..., str]) -> None:
    pinned, failed, done, interrupted, last = (
        finished(ev.RunDone(1.0)), finished(ev.RunFailed("no")), finished(ev.RunDone(1.0)), finished(), finished(ev.RunDone(1.0)),
    )  # fmt: skip
    store.pin(pinned, pinned=True)
    assert make_room(store) == []  # no quota is set
    assert [info.id for info in make_room(store, quota_gb=4.1e-3)] == [failed]
    assert [info.id for info in make_room(store, quota_gb=3.1e-3, keep=done)] == [last]
    assert {info.id for info in store.list()} == {pinned, done, interrupted}
    with pytest.raises(ResourceError, match="above the quota"):
        make_room(store, quota_gb=1e-4)
    assert {info.id for info in store.list()} == {pinned, interrupted}
    store.pin(pinned, pinned=False)
    assert [info.id for info in make_room(store, quota_gb=1.1e-3)] == [pinned]


def test_a_run_that_is_worked_on_stays(store: RunStore, finished: Callable[..., str]) -> None:
    run_id = finished(ev.RunDone(1.0))
    alive = store.take(run_id, "foreground")
    with pytest.raises(ResourceError):
        make_room(store, quota_gb=1e-6)
    alive.release()
    assert store.ids() == [run_id]


def test_the_setting(store: RunStore, finished: Callable[..., str], monkeypatch: pytest.MonkeyPatch) -> None:
    finished(ev.RunDone(1.0))
    for value in ("", "much", "-1", "nan", "inf", "1"):
        monkeypatch.setenv("SALQ_QUOTA_GB", value)
        assert make_room(store) == []
    monkeypatch.setenv("SALQ_QUOTA_GB", "0.0001")
    assert len(make_room(store)) == 1


def test_sizes(store: RunStore, finished: Callable[..., str]) -> None:
    assert RUN_BYTES < size_of(store.folder(finished())) < RUN_BYTES + 10_000


def test_what_was_half_written_is_removed(store: RunStore, finished: Callable[..., str]) -> None:
    run_id = finished()
    (store.folder(run_id) / "blocks").mkdir()
    (store.folder(run_id) / "blocks" / ".000.safetensors.ab12").write_bytes(b"half")
    (store.root / ".deleted-20260101-000000-abcd-ffff").mkdir()
    names = {path.name for path in store.folder(run_id).rglob("*") if not path.name.startswith(".")}
    tidy(store, run_id)
    assert {path.name for path in store.folder(run_id).rglob("*")} == names
    assert not list(store.root.glob(".deleted*"))
