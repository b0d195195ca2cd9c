"""The same request gives the same codes, twice in a row and after a resume; the hash says so, and what is needed to repeat a run is complete."""

from collections.abc import Callable

from salq.core import events as ev
from salq.core.files import read_json, write_json
from salq.runs import repeat
from salq.runs.execute import execute
from salq.runs.store import RunStore
from tests.unit.runs.conftest import MakeRequest


def finished(store: RunStore, request: object) -> str:
    run_id = store.create(request)  # type: ignore[arg-type]
    list(execute(store, run_id))
    return run_id


def test_same_request_same_codes_in_a_row_and_after_a_resume(store: RunStore, make_request: MakeRequest, codes: Callable[[str], list[bytes]]) -> None:
    request = make_request()
    first, again, resumed, other = finished(store, request), finished(store, request), store.create(request), finished(store, make_request(seed=1))
    events = execute(store, resumed)
    assert any(isinstance(event, ev.BlockDone) for event in events)
    events.close()
    assert repeat.hash_of_run(store, resumed) is None
    list(execute(store, resumed))

    hashes = [repeat.hash_of_run(store, run_id) for run_id in (first, again, resumed, other)]
    assert None not in hashes
    assert len(set(hashes[:3])) == 1
    assert hashes[3] != hashes[0]
    assert codes(first) == codes(again) == codes(resumed) != codes(other)
    assert {one.other for one in repeat.twins(store, first)} == {again, resumed}
    assert repeat.compare(store, again, first).words == f"All codes are identical to those of run {first}."
    needed = repeat.needed(store, first)
    assert needed["command"].endswith(f"runs rerun {first}")
    assert needed["inputs"]["model"]
    assert {"salq", "python", "torch", "threads", "cpu"} <= set(needed["environment"])
    assert needed["codes_sha256"] == hashes[0]


def test_what_was_not_the_same_is_named(store: RunStore, make_request: MakeRequest) -> None:
    first, other = finished(store, make_request()), finished(store, make_request(seed=1))
    path = store.folder(other) / "environment.json"
    write_json(path, read_json(path) | {"threads": 64})
    told = repeat.compare(store, other, first)
    assert told.same is False
    assert "threads (64, not" in told.words


def test_a_missing_or_cut_block_and_one_without_hashes_have_no_hash(store: RunStore, make_request: MakeRequest) -> None:
    run_id = finished(store, make_request("rtn"))
    path = store.blocks(run_id).path(1)
    data = path.read_bytes()
    for size in (0, 4, 100, 1000):
        path.write_bytes(data[:size])
        assert repeat.hash_of_run(store, run_id) is None
    path.write_bytes(data.replace(b"sha256", b"sha257"))
    assert repeat.hash_of_run(store, run_id) is None, "blocks without hashes are not the same as other blocks without hashes"
    path.unlink()
    assert repeat.hash_of_run(store, run_id) is None
    assert repeat.compare(store, run_id, run_id).same is None
