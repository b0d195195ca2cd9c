"""Judgements of blind tests: kept without anything personal, by many at once, and their score against chance."""

import json
import threading

import pytest

from salq.core.errors import UnknownNameError
from salq.runs.blind import FILE, Tally, record, tally
from salq.runs.store import RunStore
from tests.unit.runs.conftest import MakeRequest


@pytest.fixture
def run_id(store: RunStore, make_request: MakeRequest) -> str:
    return store.create(make_request("rtn"))


def test_what_is_kept_is_the_outcome_and_the_day(store: RunStore, run_id: str) -> None:
    assert tally(store, run_id) == Tally()
    record(store, run_id, "right", own_prompt=True)
    record(store, run_id, "wrong", own_prompt=False)
    record(store, run_id, "tie", own_prompt=False)
    assert tally(store, run_id) == Tally(right=1, wrong=1, tie=1)
    lines = [json.loads(line) for line in (store.folder(run_id) / FILE).read_text().splitlines()]
    assert [set(line) for line in lines] == [{"day", "outcome", "prompt"}] * 3
    assert [line["prompt"] for line in lines] == ["own", "given", "given"]


def test_many_visitors_at_once_lose_nothing(store: RunStore, run_id: str) -> None:
    threads = [threading.Thread(target=lambda: [record(store, run_id, "right", own_prompt=False) for _ in range(25)]) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert tally(store, run_id) == Tally(right=200)


def test_a_damaged_file_counts_what_reads(store: RunStore, run_id: str) -> None:
    record(store, run_id, "right", own_prompt=False)
    with (store.folder(run_id) / FILE).open("ab") as file:
        file.write(b'{"outcome": "maybe"}\n[1]\n\xff\xfe\n{"outcome": "wro')
    assert tally(store, run_id) == Tally(right=1)
    with pytest.raises(UnknownNameError):
        record(store, "20260101-000000-abcd", "right", own_prompt=False)


@pytest.mark.parametrize(
    ("found", "words"),
    [
        (Tally(), ""),
        (Tally(tie=1), "To 1 prompt both wrote the same, word for word."),
        (Tally(right=7, wrong=5), "7 of 12 guesses right (58%, 95 % interval 28% to 85%): the interval holds chance"),
        (Tally(right=10), "10 of 10 guesses right (100%, 95 % interval 69% to 100%): more often than chance: the two can be told apart."),
        (Tally(wrong=10, tie=2), "less often than chance: the quantized answers pass for the original's. To 2 more prompts"),
    ],
)
def test_the_score_in_words(found: Tally, words: str) -> None:
    assert words in found.words
