"""The blind test without a browser: the order is drawn anew, a guess counts once, and nothing before it names a side."""

from pathlib import Path

import pytest

from salq.chat.lockstep import Side
from salq.core.errors import ConfigError, TextError, UnknownNameError
from salq.runs.blind import Tally
from salq.runs.store import RunStore
from salq.ui.blind_actions import OPEN_ROUNDS, PROMPTS, RTN, Round, Rounds, answered, choices_of, deal, failure, judge, run_tally, waiting_words
from salq.ui.context import Choices

CHOICES = Choices("some-model", 3, 64, False, "auto", "auto")


@pytest.fixture
def store(salq_home: Path) -> RunStore:
    return RunStore(salq_home / "runs")


def with_answers(dealt: Round, *texts: str) -> Round:
    return answered(dealt, [Side(one, state="done", text=text) for one, text in zip(dealt.participants, texts, strict=True)])


def test_the_order_is_drawn_and_the_original_is_always_there(store: RunStore) -> None:
    rounds = [deal(store, CHOICES, RTN, PROMPTS[0]) for _ in range(200)]
    assert 60 < sum(one.quantized for one in rounds) < 140  # 200 fair draws leave these bounds once in 10^8
    for one in rounds:
        assert [side.kind for side in one.participants][one.quantized] == "rtn"
        assert [side.kind for side in one.participants][1 - one.quantized] == "original"
    assert not rounds[0].own_prompt
    assert deal(store, CHOICES, RTN, "my own words").own_prompt


def test_bad_input_is_refused_before_anything_is_loaded(store: RunStore) -> None:
    with pytest.raises(TextError, match="empty"):
        deal(store, CHOICES, RTN, " \x00 ")
    with pytest.raises(ConfigError, match="Nothing is chosen"):
        deal(store, CHOICES, "", "hello")
    with pytest.raises(UnknownNameError):
        deal(store, CHOICES, "20260101-000000-abcd", "hello")
    assert "only its first 2,000" in deal(store, CHOICES, RTN, "long " * 1000).note
    assert choices_of(store, CHOICES)[-1] == ("some-model rounded to nearest, w3g64", RTN)


def test_a_guess_counts_once_and_a_tie_is_no_guess(store: RunStore) -> None:
    dealt = with_answers(deal(store, CHOICES, RTN, "hello"), "one", "two")
    rounds = Rounds()
    rounds.put("visitor", dealt)
    assert rounds.take("somebody else") is None
    taken = rounds.take("visitor")
    assert taken is dealt
    assert rounds.take("visitor") is None
    assert judge(store, dealt, dealt.quantized) == "right"
    assert judge(store, dealt, 1 - dealt.quantized) == "wrong"
    assert judge(store, with_answers(dealt, "same", "same"), None) == "tie"
    assert run_tally(store, RTN) == run_tally(store, "20260101-000000-abcd") == Tally()
    for number in range(OPEN_ROUNDS + 5):
        rounds.put(str(number), dealt)
    assert rounds.take("0") is None
    assert rounds.take(str(OPEN_ROUNDS + 4)) is dealt


def test_words_before_the_guess_do_not_depend_on_the_order(store: RunStore) -> None:
    dealt = deal(store, CHOICES, RTN, "hello")
    one, two = (Side(participant, state=state) for participant, state in zip(dealt.participants, ("writing", "loading"), strict=True))
    assert waiting_words((one, two)) == waiting_words((two, one))
    for words in (waiting_words((one, two)), waiting_words(())):
        assert not any(side.title in words for side in dealt.participants)
    assert failure(()) == failure([Side(dealt.participants[0], state="done")]) == "One side wrote nothing; ask something else."
    assert failure([Side(dealt.participants[0], state="failed", message="It broke.")]) == "It broke."
