"""Scoring through a real process: numbers, the fork, blocks put back, stop, two visitors, a crash, refusals in one sentence."""

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from salq.chat.participants import Participant
from salq.chat.scorer import ScorePool
from salq.evaluation.tokens import score_tokens
from salq.kernels.assemble import quantized_copy, rtn_blocks
from salq.models.llama import Llama
from salq.quant.spec import QuantSpec

SPEC = QuantSpec(bits=2, group_size=32)
HELLO = [{"role": "user", "content": "Hello"}]


@pytest.fixture(scope="module")
def pool() -> Iterator[ScorePool]:
    """One pool for the module: starting a process takes seconds."""
    pool = ScorePool()
    yield pool
    pool.close()
    assert pool.processes() == []


@pytest.fixture
def pair(tiny_folder: Path) -> tuple[Participant, Participant]:
    return Participant.original(str(tiny_folder)), Participant.rtn(str(tiny_folder), SPEC)


def asked(pool: ScorePool, pair: tuple[Participant, Participant], **request: Any) -> list[dict[str, Any]]:
    return list(pool.ask(*pair, "cpu", request, threading.Event()))


def test_scores_forks_and_where(pool: ScorePool, pair: tuple[Participant, Participant], tiny: Llama) -> None:
    own, other = ({"messages": HELLO, "ids": ids, "max_new_tokens": 8} for ids in ([65, 66, 67], [65, 90]))
    events = asked(pool, pair, op="score", subject=own, answers=[own, other])
    assert [event["event"] for event in events if event["event"] == "progress"] == ["progress"] * 3
    done = events[-1]
    assert done["event"] == "done"
    assert done["fork"]["prefix_tokens"] == 1
    assert done["view"]["count"] == 3
    typed = asked(pool, pair, op="score", subject={"text": "A text."})[-1]
    ids = tiny.tokenizer("A text.").input_ids
    want = score_tokens(tiny, quantized_copy(tiny, rtn_blocks(tiny, SPEC)), ids)
    assert [one["kl"] for one in typed["view"]["tokens"]] == pytest.approx([one.kl for one in want], abs=1e-6)
    assert typed["fork"] is None
    where = asked(pool, pair, op="where", subject={"text": "A text."}, index=2)
    assert [(event["done"], event["of"]) for event in where if event["event"] == "progress"] == [(1, 2), (2, 2)]
    found = where[-1]["breakdown"]
    assert found["index"] == 2
    assert found["kl"] == pytest.approx(want[2].kl, rel=1e-3)
    assert (len(found["blocks"]), len(found["matrices"])) == (2, 7)


def test_bad_requests_are_one_sentence_and_the_process_lives_on(pool: ScorePool, pair: tuple[Participant, Participant]) -> None:
    asked(pool, pair, op="score", subject={"text": "Still here."})
    process = pool.processes()[0].pid
    for request, sentence in [
        ({"op": "score", "subject": {"text": " "}}, "no text to score"),
        ({"op": "score", "subject": {"messages": HELLO, "ids": [10**8]}}, "not tokens"),
        ({"op": "where", "subject": {"text": "A text."}, "index": 99}, "is not predicted"),
        ({"op": "where", "subject": {"text": "A text."}}, "not one that this process knows"),
        ({"op": "score", "subject": {"text": "A text."}, "answers": [{"text": "A text."}]}, "not one that this process knows"),
        ({"op": "score"}, "not one that this process knows"),
    ]:
        event = asked(pool, pair, **request)[-1]
        assert event["event"] == "error"
        assert sentence in event["message"]
    assert pool.processes()[0].pid == process


def test_two_visitors_wait_in_line_and_stop_stops(pool: ScorePool, pair: tuple[Participant, Participant]) -> None:
    first, second = threading.Event(), threading.Event()
    one = pool.ask(*pair, "cpu", {"op": "where", "subject": {"text": "x" * 900}, "index": 800}, first)
    assert next(event for event in one if event["event"] == "progress")["of"] == 2
    two = pool.ask(*pair, "cpu", {"op": "score", "subject": {"text": "me too"}}, second)
    assert "another visitor's text" in next(two)["text"]
    first.set()
    assert list(one)[-1]["event"] == "done"
    assert list(two)[-1]["view"]["count"] == 5


def test_a_crash_is_said_and_the_next_request_starts_another_process(pool: ScorePool, pair: tuple[Participant, Participant]) -> None:
    asked(pool, pair, op="score", subject={"text": "Alive."})
    asking = pool.ask(*pair, "cpu", {"op": "where", "subject": {"text": "x" * 900}, "index": 890}, threading.Event())
    next(asking)
    os.kill(pool.processes()[0].pid or 0, signal.SIGKILL)
    assert "was killed" in list(asking)[-1]["message"]
    assert asked(pool, pair, op="score", subject={"text": "Alive."})[-1]["event"] == "done"


def test_what_cannot_be_loaded_is_one_sentence(pool: ScorePool, pair: tuple[Participant, Participant], tmp_path: Path) -> None:
    gone = Participant.run("r9", pair[0].model, tmp_path / "nothing")
    assert "no finished block" in asked(pool, (pair[0], gone), op="score", subject={"text": "A text."})[-1]["message"]
    assert len(pool.processes()) == 1  # the other pair gave way
