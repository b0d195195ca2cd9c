"""Participants as values, the fold of events into a side, and how fast an answer was."""

from pathlib import Path

import pytest

from salq.chat.lockstep import Side, fold
from salq.chat.participants import Participant
from salq.chat.serve import Pace
from salq.core.errors import ConfigError
from salq.quant.spec import QuantSpec


@pytest.mark.parametrize(
    "participant",
    [
        Participant.original("smollm2-135m"),
        Participant.rtn("HuggingFaceTB/SmolLM2-135M-Instruct", QuantSpec(bits=2, group_size=None)),
        Participant.run("20260101-x", "smollm2-135m", Path("/nowhere/blocks"), "My run"),
    ],
)
def test_participants_travel_as_json(participant: Participant) -> None:
    assert Participant.from_json(participant.to_json()) == participant
    assert hash(participant) == hash(Participant.from_json(participant.to_json()))


def test_what_is_not_a_participant_is_refused() -> None:
    with pytest.raises(ConfigError):
        Participant.from_json({"kind": "original", "surprise": 1})
    with pytest.raises(ConfigError):
        Participant.from_json({**Participant.original("m").to_json(), "spec": {"bits": 5}})


def test_titles_name_model_and_grid(tmp_path: Path) -> None:
    assert Participant.rtn("org/Name-1B", QuantSpec(bits=3)).title == "Name-1B RTN w3g64"
    assert Participant.original(str(tmp_path)).title == f"{tmp_path.name} original"


def test_a_folder_is_named_absolutely(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "model").mkdir()
    monkeypatch.chdir(tmp_path)
    assert Participant.original("model").model == str(tmp_path / "model")


def events() -> list[dict]:
    return [
        {"event": "status", "text": "Loading"},
        {"event": "ready", "reference": "full precision", "device": "cpu", "execution": "torch float32", "memory_gb": 0.5},
        {"event": "start", "style": "chat", "notes": ["cut"], "prompt_tokens": 4},
        {"event": "token", "text": "a\x1b", "count": 1, "seconds": 0.5, "first_token_seconds": 0.5, "tokens_per_second": None},
        {
            "event": "done",
            "text": "b",
            "end": "length",
            "count": 2,
            "seconds": 1.0,
            "first_token_seconds": 0.5,
            "tokens_per_second": 2.0,
            "memory_gb": 0.6,
        },
    ]


def test_fold_tells_the_whole_answer() -> None:
    side = Side(Participant.original("m"))
    states = []
    for event in events():
        side = fold(side, event)
        states.append(side.state)
    assert states == ["loading", "writing", "writing", "writing", "done"]
    assert (side.text, side.count, side.memory_gb, side.tokens_per_second) == ("ab", 2, 0.6, 2.0)
    assert side.notes == ("cut",)
    assert side.message == "Cut at the chosen length."
    assert side.to_json()["text"] == "ab"


def test_an_error_keeps_the_text_so_far() -> None:
    side = fold(fold(Side(Participant.original("m")), events()[3]), {"event": "error", "message": "It ended."})
    assert (side.state, side.text, side.message) == ("failed", "a", "It ended.")
    assert side.has_ended


def test_pace_counts_tokens_and_not_the_end() -> None:
    pace = Pace()
    assert pace.report().tokens_per_second is None
    for seconds in (0.5, 0.6, 0.7):
        pace.add(is_token=True, seconds=seconds)
    pace.add(is_token=False, seconds=0.9)
    speed = pace.report()
    assert (speed.count, speed.first_token_seconds, speed.seconds) == (3, 0.5, 0.9)
    assert speed.tokens_per_second == pytest.approx(10.0)
