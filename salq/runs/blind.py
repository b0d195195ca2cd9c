"""What the blind tests of a run have shown: judgements in an append-only file in the run's folder, and their score against chance.

A judgement is whether somebody who saw two unnamed answers to the same prompt found the quantized one. Nothing about the person is kept, nor the
prompt, which may be personal: only the day, the outcome, and whether the prompt was one of ours.
"""

import json
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal

from salq.core.files import as_resource_error
from salq.evaluation.binomial import share
from salq.evaluation.paired import Interval
from salq.runs.store import RunStore

FILE = "blind.jsonl"
CHANCE = 0.5
Outcome = Literal["right", "wrong", "tie"]
OUTCOMES: tuple[Outcome, ...] = ("right", "wrong", "tie")


@dataclass(frozen=True)
class Tally:
    """Judgements so far: `right` and `wrong` guesses, and `tie`: prompts to which both wrote the same, so that there was nothing to judge."""

    right: int = 0
    wrong: int = 0
    tie: int = 0

    @property
    def trials(self) -> int:
        """How many guesses there were."""
        return self.right + self.wrong

    @property
    def interval(self) -> Interval | None:
        """The share of right guesses with its exact 95 % interval; None before the first guess."""
        return share(self.right, self.trials) if self.trials else None

    def plus(self, outcome: Outcome) -> "Tally":
        """With one judgement more."""
        return Tally(**{name: getattr(self, name) + (name == outcome) for name in OUTCOMES})

    @property
    def words(self) -> str:
        """The score against chance in one or two sentences; '' before anything was judged."""
        ties = f" To {self.tie} more {'prompt' if self.tie == 1 else 'prompts'} both wrote the same, word for word." if self.tie else ""
        if (found := self.interval) is None:
            return ties.strip().replace(" more ", " ")
        if found.low > CHANCE:
            meaning = "more often than chance: the two can be told apart"
        elif found.high < CHANCE:
            meaning = "less often than chance: the quantized answers pass for the original's"
        else:
            meaning = "the interval holds chance (50 %), so these guesses cannot tell the two apart"
        score = f"{self.right} of {self.trials} guesses right ({found.value:.0%}, 95 % interval {found.low:.0%} to {found.high:.0%})"
        return f"{score}: {meaning}.{ties}"


def record(store: RunStore, run_id: str, outcome: Outcome, *, own_prompt: bool) -> None:
    """Add one judgement to the run; any number of processes may do so at once. Raises UnknownNameError, ResourceError."""
    path = store.folder(run_id) / FILE
    value = {"day": datetime.now(UTC).strftime("%Y-%m-%d"), "outcome": outcome, "prompt": "own" if own_prompt else "given"}
    try:
        file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o644)
        try:
            os.write(file, json.dumps(value).encode() + b"\n")  # one short write to a file opened for appending is never torn by another one
        finally:
            os.close(file)
    except OSError as error:
        raise as_resource_error(error, path) from error


def tally(store: RunStore, run_id: str) -> Tally:
    """The run's judgements; lines that do not read are passed over. Raises UnknownNameError."""
    path = store.folder(run_id) / FILE
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines()
    except OSError:
        return Tally()
    found = [outcome for line in lines if (outcome := _outcome(line)) is not None]
    return Tally(**{name: found.count(name) for name in OUTCOMES})


def _outcome(line: str) -> Outcome | None:
    try:
        value = json.loads(line)
    except ValueError:
        return None
    outcome = value.get("outcome") if isinstance(value, dict) else None
    return next((known for known in OUTCOMES if known == outcome), None)
