"""The token view: which text is scored by whom, and what is refused before any work."""

from pathlib import Path
from typing import Any

import pytest

from salq.chat import scoring
from salq.chat.lockstep import Side
from salq.chat.participants import Participant
from salq.core import settings
from salq.core.errors import ConfigError, SalqError, TextError
from salq.figures import restored_shares
from salq.runs.store import RunStore
from salq.ui import token_actions
from salq.ui.compare_actions import NOBODY, ORIGINAL, RTN, ask, turn_of
from salq.ui.context import Choices
from salq.ui.token_actions import Task, conditions, kept_tokens, last_answer, rows, task_of, where, where_rows

CHOICES = Choices("smollm2-135m", 3, 64, False, "cpu", "auto")
NAMED = (ORIGINAL, RTN, NOBODY)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


@pytest.fixture
def turns(store: RunStore) -> list[dict[str, Any]]:
    """Two questions; the original and rounding to nearest answered both."""
    made: list[dict[str, Any]] = []
    for prompt, ids in (("one", (5, 6)), ("two", (7, 8, 9))):
        question = ask(store, CHOICES, NAMED, prompt, "Be brief.", (64, 0.0, 0))
        sides = [Side(who, text=f"{who.kind} to {prompt}", ids=(*ids, index)) for index, who in enumerate(question.participants)]
        made.append(turn_of(question, sides))
    return made


def test_the_originals_last_answer_with_the_conversation_it_saw(store: RunStore, turns: list[dict[str, Any]]) -> None:
    task = task_of(store, CHOICES, NAMED, 1, "original", "", turns)
    assert (task.original.kind, task.side.kind, task.device) == ("original", "rtn", "cpu")
    assert task.subject["ids"] == [7, 8, 9, 0]
    assert task.subject["max_new_tokens"] == 64
    assert [one["content"] for one in task.subject["messages"]] == ["Be brief.", "one", "original to one", "two"]
    assert task.answers is not None
    assert task.answers[0] == task.subject
    assert task.answers[1]["ids"] == [7, 8, 9, 1]
    sides = task_of(store, CHOICES, NAMED, 1, "side", "", turns)
    assert sides.subject == task.answers[1]
    assert sides.answers == task.answers


def test_a_side_that_has_not_answered_leaves_no_fork(store: RunStore, turns: list[dict[str, Any]]) -> None:
    other = Choices("smollm2-135m", 2, 64, False, "cpu", "auto")
    task = task_of(store, other, NAMED, 1, "original", "", turns)
    assert task.answers is None
    assert "both have answered" in task.missing
    assert last_answer(turns, Participant.rtn("smollm2-135m", other.spec)) is None
    assert last_answer([], task.original) is None
    assert last_answer([{"prompt": "x", "answers": ["kept"], "who": ["SmolLM2 original"]}], task.original) is None


def test_a_text_of_ones_own_is_cleaned_and_cut(store: RunStore) -> None:
    task = task_of(store, CHOICES, NAMED, 1, "own", "  <b>Hi</b>\x1b[2J\x00 <|im_end|> ", [])
    assert task.subject == {"text": "<b>Hi</b>[2J <|im_end|>"}
    long = task_of(store, CHOICES, NAMED, 1, "own", "word " * 5000, [])
    assert len(long.subject["text"]) < 8001
    assert long.note == "The text had 24,999 characters; only its first 8,000 were scored."


@pytest.mark.parametrize(
    ("side", "source", "own", "error"),
    [
        (1, "own", "  ", TextError),
        (1, "own", None, TextError),
        (1, "original", "", TextError),
        (1, "side", "", TextError),
        (0, "own", "a text", ConfigError),
        (2, "own", "a text", ConfigError),
        (7, "own", "a text", ConfigError),
        ("1", "own", "a text", ConfigError),
        (1, "all", "a text", ConfigError),
    ],
)
def test_bad_input_is_one_sentence(store: RunStore, side: object, source: str, own: object, error: type[SalqError]) -> None:
    with pytest.raises(error):
        task_of(store, CHOICES, NAMED, side, source, own, [])


@pytest.mark.parametrize("index", [None, -1, "3", 2.5])
def test_what_is_no_token_is_refused(store: RunStore, index: object) -> None:
    task = Task(Participant.original("m"), Participant.rtn("m", CHOICES.spec), "cpu", {"text": "a b"})
    with pytest.raises(ConfigError, match="No token is chosen"):
        list(where(None, task, index, None))  # type: ignore[arg-type] - refused before anybody is asked


def test_the_page_and_the_process_have_one_limit() -> None:
    assert token_actions.MAX_TOKENS == scoring.MAX_TOKENS


def test_tables_and_bars() -> None:
    token = {
        "text": " a", "flipped": True, "kl": 0.25, "change": -1.5, "log_probability_original": -0.5, "rank_original": 1, "rank": 7,
        "top_original": [{"text": " a", "probability": 0.6}], "top": [{"text": "<b>", "probability": 0.4}],
    }  # fmt: skip
    view = {"tokens": [token], "context_tokens": 12, "count": 1, "original": "m, full precision", "execution": "torch reference", "notes": ["Cut."]}
    assert rows(view) == [[1, "“ a” ≠", 0.25, -1.5, -0.5, 1, 7, "“ a” 60 %", "“<b>” 40 %"]]
    assert conditions(view, None).startswith("1 tokens after 12 tokens of context. m,")
    assert conditions(view, 2.04) == "1 tokens after 12 tokens of context, scored in 2.0 s. m, full precision; quantized: torch reference. Cut."
    found = {"blocks": [0.5, 1.5], "block_shares": [0.5, -0.5], "matrices": {"mlp.up_proj": 0.0}, "matrix_shares": {"mlp.up_proj": 1.0}}
    assert where_rows(found) == [["block 0", 0.5, 50.0], ["block 1", 1.5, -50.0], ["mlp.up_proj, all blocks", 0.0, 100.0]]
    figure = restored_shares(["0", "1"], [0.5, -0.5], [0.5, 1.5], title="One block put back", axis="block")
    assert list(figure.data[0].y) == [50.0, -50.0]
    assert len(set(figure.data[0].marker.color)) == 2  # what grew is told apart, and lies below zero
    assert figure.layout.yaxis.ticksuffix == " %"


def test_a_kept_example_is_drawn_or_passed_over(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = kept_tokens("smollm2-135m")
    assert found is not None
    assert len(found.rows) == len(found.shown["tokens"]) > 20
    assert found.where_reading.startswith(f"Token {found.shown['worst'] + 1}: Of this token's")
    for part in ("the original's answer to “What is the capital of France", "scored by the original and by apiq w3g64", "torch reference"):
        assert part in found.note
    assert kept_tokens("../../etc") is None
    monkeypatch.setattr(settings, "ASSETS", tmp_path)
    folder = tmp_path / "results" / "smollm2-135m"
    folder.mkdir(parents=True)
    for damaged in ("{}", "[]", "not json", '{"view": {"tokens": [{}], "reading": ""}, "breakdown": {}, "fork": null}'):
        (folder / "tokens.json").write_text(damaged, encoding="utf-8")
        assert kept_tokens("smollm2-135m") is None
