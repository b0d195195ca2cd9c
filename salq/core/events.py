"""What a run says while it works, as values.

Algorithms yield events; they never print, log or draw. The command line, the page and the run store fold the same stream
(`progress.fold`). Events hold JSON values only, so that a line of `events.jsonl` is exactly one event.

Grammar (checked by a property test):
    RunStarted (PhaseStarted (PhaseStep | BlockStarted StepDone* BlockDone | MetricReported)* PhaseDone)*
    (RunDone | RunFailed | RunCancelled)
A resumed run appends a new RunStarted to the same file and folds from there.
"""

import dataclasses
from dataclasses import dataclass, field
from typing import Any, ClassVar

Json = dict[str, Any]


@dataclass(frozen=True)
class Event:
    """Base of all events. `at` is the wall clock in seconds since the epoch, filled in by whoever records the event."""

    kind: ClassVar[str] = "Event"
    at: float | None = field(default=None, kw_only=True)

    def to_json(self) -> Json:
        """`{"kind": ..., **fields}`; `from_json` is its inverse."""
        return {"kind": type(self).__name__, **dataclasses.asdict(self)}


@dataclass(frozen=True)
class RunStarted(Event):
    """First event of every start or resume."""

    run: str
    resumed: bool = False


@dataclass(frozen=True)
class PhaseStarted(Event):
    """A named part of a run: 'load', 'saliency', 'calibration', 'evaluation', 'errors'. `of` counts its units (blocks, samples, windows)."""

    phase: str
    of: int
    unit: str = "blocks"
    weight: float = 1.0
    """Share of the run's time that this phase is expected to take, in any unit; used for progress and ETA only."""

    @property
    def amount(self) -> str:
        """For people: 1 model, 30 blocks."""
        return f"{self.of} {self.unit if self.of != 1 else self.unit.removesuffix('s')}"


@dataclass(frozen=True)
class PhaseStep(Event):
    """`done` of the phase's units are finished (phases without blocks)."""

    phase: str
    done: int


@dataclass(frozen=True)
class BlockStarted(Event):
    """Block `block` (0-based) of `of` begins; `stored` says that it is loaded from disk, not computed."""

    block: int
    of: int
    steps: int = 0
    stored: bool = False


@dataclass(frozen=True)
class StepDone(Event):
    """One optimizer step. `loss` has every term by its name, each as it enters the sum; never one blended number."""

    block: int
    stage: str
    step: int
    of: int
    loss: dict[str, float]
    grad_norm: float | None = None


@dataclass(frozen=True)
class BlockDone(Event):
    """Block finished and stored. `errors[module_name]` is the relative weight error; `output_error` the block's relative output error."""

    block: int
    output_error: float | None
    errors: dict[str, float]
    seconds: float
    details: dict[str, float] = field(default_factory=dict)


@dataclass(frozen=True)
class MetricReported(Event):
    """A result: any JSON value under a stable name ('perplexity', 'kl', 'bits_per_weight', 'size_mb', ...)."""

    name: str
    value: Any


@dataclass(frozen=True)
class PhaseDone(Event):
    """End of a phase."""

    phase: str
    seconds: float


@dataclass(frozen=True)
class RunDone(Event):
    """The run finished; its artifacts are complete."""

    seconds: float


@dataclass(frozen=True)
class RunFailed(Event):
    """The run ended early; `message` is one sentence for a person, `bug` says that it was not a SalqError."""

    message: str
    error: str = "SalqError"
    bug: bool = False


@dataclass(frozen=True)
class RunCancelled(Event):
    """Stopped on request; finished blocks are kept and `resume` goes on from them."""

    done_blocks: int = 0


KINDS: dict[str, type[Event]] = {
    cls.__name__: cls
    for cls in (
        RunStarted, PhaseStarted, PhaseStep, BlockStarted, StepDone, BlockDone, MetricReported, PhaseDone, RunDone, RunFailed, RunCancelled,
    )
}  # fmt: skip

MAX_COUNT = 10**9
"""No run has so many blocks, steps or samples; what says so was damaged."""


def from_json(value: Json) -> Event:
    """Inverse of `Event.to_json`. Raises KeyError or TypeError for what is not an event (a torn, altered or foreign line)."""
    fields = dict(value)
    event = KINDS[fields.pop("kind")](**fields)
    for one in dataclasses.fields(event):
        if not _fits(getattr(event, one.name), one.type):
            raise TypeError(f"{one.name} of {type(event).__name__} is not {one.type}")
    return event


def _fits(value: Any, kind: Any) -> bool:
    """Whether a value read from JSON is of a field's type; a number that was not finite is null there."""
    if kind is Any:
        return True
    if kind is float or kind == float | None:
        return (value is None and kind is not float) or (isinstance(value, int | float) and not isinstance(value, bool))
    if kind is int:
        return isinstance(value, int) and not isinstance(value, bool) and abs(value) <= MAX_COUNT
    if kind in (str, bool):
        return isinstance(value, kind)
    return isinstance(value, dict) and all(number is None or _fits(number, float) for number in value.values())
