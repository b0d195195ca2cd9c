"""Compare: who can talk, whose words each side sees, and that nothing that anybody writes is markup."""

import threading
from dataclasses import replace
from pathlib import Path

import pytest

from salq import recipes
from salq.chat.lockstep import Side
from salq.chat.participants import Participant
from salq.core.errors import ConfigError, SalqError, TextError
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import RunStore
from salq.ui.compare_actions import (
    NOBODY,
    ORIGINAL,
    RTN,
    Stops,
    ask,
    bubbles,
    conversation,
    kept_chat,
    key_of,
    last_question,
    next_seed,
    participant_of,
    side_choices,
    side_remarks,
    side_words,
    turn_of,
)
from salq.ui.context import Choices
from salq.ui.presets import PRESETS
from salq.ui.talk import talk_html

CHOICES = Choices("smollm2-135m", 3, 64, False, "cpu", "auto")
SAMPLING = (64, 0.0, 0)


@pytest.fixture
def store(tmp_path: Path) -> RunStore:
    return RunStore(tmp_path / "runs")


def test_original_and_rtn_can_always_talk(store: RunStore) -> None:
    assert [value for _, value in side_choices(store, CHOICES)] == [NOBODY, ORIGINAL, RTN]
    assert participant_of(store, CHOICES, RTN).spec == CHOICES.spec
    assert participant_of(store, CHOICES, ORIGINAL).kind == "original"


def test_a_run_that_cannot_talk_is_refused_in_one_sentence(store: RunStore) -> None:
    unfinished = store.create(CalibrateRequest(model="smollm2-135m", recipe=recipes.get("rtn")))
    explored = store.create(ExploreRequest(model="smollm2-135m"))
    for value in (unfinished, explored, "20260101-000000-abcd", "../../etc/passwd", ""):
        with pytest.raises(SalqError):
            participant_of(store, CHOICES, value)


def test_a_question_is_checked(store: RunStore) -> None:
    question = ask(store, CHOICES, (ORIGINAL, RTN), "  Hi\x1b[2J there  ", "Be brief.\x00", SAMPLING)
    assert (question.prompt, question.system) == ("Hi[2J there", "Be brief.")
    assert [one.kind for one in question.participants] == ["original", "rtn"]
    long = ask(store, CHOICES, (ORIGINAL,), "x" * 5000, "", SAMPLING)
    assert len(long.prompt) == 2000
    assert "only its first 2,000" in long.note


@pytest.mark.parametrize(
    ("sides", "prompt", "sampling", "error"),
    [
        ((ORIGINAL, RTN), "  ", SAMPLING, TextError),
        ((ORIGINAL, RTN), None, SAMPLING, TextError),
        ((ORIGINAL, ORIGINAL), "hi", SAMPLING, ConfigError),
        ((NOBODY, NOBODY), "hi", SAMPLING, ConfigError),
        ((ORIGINAL,), "hi", (10**9, 0.0, 0), ConfigError),
        ((ORIGINAL,), "hi", (64, 99.0, 0), ConfigError),
        ((ORIGINAL,), "hi", (64, 0.0, -1), ConfigError),
        ((ORIGINAL,), "hi", (64.5, 0.0, 0), ConfigError),
        ((ORIGINAL,), "hi", (None, 0.0, 0), ConfigError),
        ((ORIGINAL,), "hi", (64, None, 0), ConfigError),
        ((ORIGINAL,), "hi", (float("nan"), 0.0, 0), ConfigError),
    ],
)
def test_bad_input_is_one_sentence(store: RunStore, sides: tuple, prompt: object, sampling: tuple, error: type) -> None:
    with pytest.raises(error):
        ask(store, CHOICES, sides, prompt, "", sampling)


def test_each_side_sees_its_own_answers_and_only_of_the_same_model(store: RunStore) -> None:
    question = ask(store, CHOICES, (ORIGINAL, RTN), "one", "", SAMPLING)
    sides = [Side(participant, text=f"answer of {participant.kind}") for participant in question.participants]
    turns = [turn_of(question, sides)]
    original, rtn = question.participants
    seen = conversation(turns, 1, key_of(rtn), "two", "sys")
    assert [message["role"] for message in seen] == ["system", "user", "assistant", "user"]
    assert seen[2]["content"] == "answer of rtn"
    other_bits = Participant.rtn("smollm2-135m", CHOICES.spec.model_copy(update={"bits": 2}))
    assert [message["content"] for message in conversation(turns, 1, key_of(other_bits), "two", "")] == ["two"]
    assert "answer of rtn" not in str(conversation(turns, 0, key_of(original), "two", ""))
    assert [one["content"] for one in bubbles(turns, 0, "two", "writing")] == ["one", "answer of original", "two", "writing"]


def test_a_side_that_said_nothing_leaves_no_empty_message(store: RunStore) -> None:
    turns = [{"prompt": "one", "answers": ["", "b"], "who": ["x", "y"]}]
    assert [message["content"] for message in conversation(turns, 0, "x", "two", "")] == ["two"]
    assert [one["role"] for one in bubbles(turns, 0)] == ["user"]


@pytest.mark.parametrize(
    "evil", ["<script>alert(1)</script>", "<img src=x onerror=alert(1)>", "</div><b>bold</b>", "{{value}} ${1+1}", "[x](javascript:alert(1))"]
)
def test_what_is_said_is_text(evil: str) -> None:
    html = talk_html([{"role": "user", "content": evil}, {"role": "assistant", "content": evil}])
    assert "<script" not in html
    assert "<img" not in html
    assert "<b>" not in html
    assert html.count("<div") == 3


def test_a_side_in_words() -> None:
    side = Side(
        Participant.original("m"), state="done", count=12, tokens_per_second=20.04, first_token_seconds=0.513, memory_gb=0.871,
        message="Cut at the chosen length.", notes=("Shortened.",), reference="reference reconstructed from a 4-bit file", device="cpu",
    )  # fmt: skip
    assert side_words(side) == "20.0 tokens/s, first token after 0.51 s, 0.87 GB of memory, 12 tokens"
    assert side_remarks(side) == "Cut at the chosen length. Shortened. This is a reference reconstructed from a 4-bit file."
    plain = replace(side, notes=(), message="", reference="", execution="torch float32")
    assert side_remarks(plain) == "Runs on torch float32: its weights are not quantized, so torch's own products run them."
    rtn = replace(plain, participant=Participant.rtn("m", CHOICES.spec), execution="onnxruntime (triton: no GPU)")
    assert side_remarks(rtn) == "Runs on onnxruntime (triton: no GPU): the fastest executor here that can run these codes."
    assert side_remarks(replace(rtn, participant=replace(rtn.participant, executor="reference"))).endswith(": it was asked for.")


def test_ask_again_and_edit_go_back_one_turn() -> None:
    turns = [{"prompt": "one", "answers": ["a"], "who": ["x"]}, {"prompt": "two", "answers": ["b"], "who": ["x"]}]
    assert last_question(turns) == ("two", turns[:1])
    assert last_question([]) == ("", [])
    assert next_seed(0.0, 7) == 7  # greedy: another seed would promise another answer
    assert next_seed(0.5, 7) == 8
    assert next_seed(0.5, 2**31 - 1) == 0
    assert next_seed(0.5, None) is None


def test_presets_say_what_to_look_for() -> None:
    assert [one.key for one in PRESETS] == ["counting", "rhyme", "fact", "arithmetic", "copying"]
    assert all("look" in one.look.lower() and one.prompt for one in PRESETS)


def test_stop_reaches_only_its_own_visitor() -> None:
    stops = Stops()
    mine, theirs = stops.begin("me"), stops.begin("them")
    stops.stop("me")
    assert mine.is_set()
    assert not theirs.is_set()
    again = stops.begin("them")
    assert theirs.is_set()
    stops.end("them", theirs)
    assert not again.is_set()
    stops.end("them", again)
    stops.stop("them")
    assert stops.begin("me") is not mine
    assert isinstance(mine, threading.Event)


def test_no_kept_conversation_of_an_unknown_model() -> None:
    assert kept_chat("somebody/some-llama") is None
    assert kept_chat("../../etc") is None
