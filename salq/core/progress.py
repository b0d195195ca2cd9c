"""The fold of a run's events into what a person looks at: fraction done, time left, curves, errors, results.

One fold serves the command line, the page and `runs show`. Folding a prefix and then the rest equals folding all.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any

from salq.core import events as ev


@dataclass
class BlockCurve:
    """Losses of one block: `losses[i]` are the terms at `steps[i]` (thinned to at most 200 points, first and last kept)."""

    stages: list[str] = field(default_factory=list)
    steps: list[int] = field(default_factory=list)
    losses: list[dict[str, float]] = field(default_factory=list)
    _stride: int = 1
    _seen: int = 0

    def add(self, stage: str, step: int, loss: dict[str, float]) -> None:
        """Append a point, halving the resolution whenever 200 points are reached."""
        if self._seen % self._stride == 0:
            self.stages.append(stage)
            self.steps.append(step)
            self.losses.append(loss)
        self._seen += 1
        if len(self.steps) >= MAX_POINTS:
            del self.stages[1::2], self.steps[1::2], self.losses[1::2]
            self._stride *= 2


MAX_POINTS = 200
DISTILLATION = "distillation_kl"


@dataclass(frozen=True)
class StartTerm:
    """One loss term of a block before its first step: its value as it enters the sum, and the norm of its gradient by group of parameters."""

    name: str
    value: float
    gradients: dict[str, float]

    @property
    def words(self) -> str:
        """Such as 'output 1.6, gradient clipping 0.2, adapter 0.05'."""
        felt = ", ".join(f"{group} {norm:.2g}" for group, norm in self.gradients.items())
        return f"{self.name} {self.value:.2g}, gradient {felt}" if felt else f"{self.name} {self.value:.2g}"


def start_terms(details: Mapping[str, float]) -> list[StartTerm]:
    """The terms in `BlockDone.details`: loss.TERM and gradient.TERM.GROUP."""
    names = [key.removeprefix("loss.") for key in details if key.startswith("loss.")]
    gradients = {key: value for key, value in details.items() if key.startswith("gradient.")}
    return [
        StartTerm(
            name, details[f"loss.{name}"], {key.rsplit(".", 1)[1]: value for key, value in gradients.items() if key.startswith(f"gradient.{name}.")}
        )
        for name in names
    ]


@dataclass
class Progress:
    """State of a run as its events tell it. `fraction` is monotone within one start and ends at 1."""

    phase: str = ""
    unit: str = ""
    phase_of: int = 0
    phase_done: float = 0.0
    block: int | None = None
    blocks_done: int = 0
    n_blocks: int = 0
    fraction: float = 0.0
    started_at: float | None = None
    last_at: float | None = None
    seconds: float | None = None
    outcome: str = ""
    message: str = ""
    curves: dict[int, BlockCurve] = field(default_factory=dict)
    output_errors: dict[int, float | None] = field(default_factory=dict)
    weight_errors: dict[int, dict[str, float]] = field(default_factory=dict)
    details: dict[int, dict[str, float]] = field(default_factory=dict)
    """Losses and gradients of every block before its first step (`start_terms`); empty for a block that was loaded."""
    metrics: dict[str, Any] = field(default_factory=dict)
    distillation: BlockCurve = field(default_factory=BlockCurve)
    """KL from the original over the steps of the end-to-end pass, nats per token."""
    phase_seconds: dict[str, float] = field(default_factory=dict)
    plan: dict[str, float] = field(default_factory=dict)
    """Expected share of time per phase; a `MetricReported('plan', {...})` sets it, and phases outside it weigh their own `weight`."""
    _finished_weight: float = 0.0
    _phase_weight: float = 0.0

    @property
    def eta(self) -> float | None:
        """Seconds left, from the elapsed time of this start and the fraction done; None before 2 % is done."""
        if self.outcome or self.started_at is None or self.last_at is None or self.fraction < 0.02:  # noqa: PLR2004 - before that, noise
            return None
        elapsed = self.last_at - self.started_at
        if elapsed < 0:  # the clock was set back
            return None
        return elapsed * (1 - self.fraction) / self.fraction

    def add(self, event: ev.Event) -> None:
        """Fold one event in."""
        self.last_at = event.at if event.at is not None else self.last_at
        handler = getattr(self, f"_on_{type(event).__name__}", None)
        if handler is not None:
            handler(event)

    def _advance(self) -> None:
        total = sum(self.plan.values()) or (self._finished_weight + self._phase_weight)
        done = self._finished_weight + self._phase_weight * min(self.phase_done / max(self.phase_of, 1), 1.0)
        if total > 0:
            # A run that outruns its plan still has work left until RunDone says otherwise.
            self.fraction = max(self.fraction, min(done / total, 0.99))

    def _on_RunStarted(self, event: ev.RunStarted) -> None:  # noqa: N802 - named after the event
        self.started_at, self.fraction, self.outcome, self.message = event.at, 0.0, "", ""
        self.distillation = BlockCurve()
        self._finished_weight = self._phase_weight = 0.0

    def _on_PhaseStarted(self, event: ev.PhaseStarted) -> None:  # noqa: N802
        self.phase, self.phase_of, self.unit, self.phase_done = event.phase, event.of, event.unit, 0.0
        self._phase_weight = self.plan.get(event.phase, event.weight)

    def _on_PhaseStep(self, event: ev.PhaseStep) -> None:  # noqa: N802
        self.phase_done = float(event.done)
        self._advance()

    def _on_BlockStarted(self, event: ev.BlockStarted) -> None:  # noqa: N802
        self.block, self.n_blocks = event.block, event.of
        if not event.stored:
            self.curves[event.block] = BlockCurve()

    def _on_StepDone(self, event: ev.StepDone) -> None:  # noqa: N802
        self.curves.setdefault(event.block, BlockCurve()).add(event.stage, event.step, event.loss)
        self.phase_done = event.block + event.step / max(event.of, 1)
        self._advance()

    def _on_BlockDone(self, event: ev.BlockDone) -> None:  # noqa: N802
        self.output_errors[event.block] = event.output_error
        self.weight_errors[event.block] = event.errors
        if event.details:  # a block that is loaded when a run resumes has none, and takes nothing away
            self.details[event.block] = event.details
        self.blocks_done = len(self.output_errors)
        self.phase_done = float(event.block + 1)
        self._advance()

    def _on_MetricReported(self, event: ev.MetricReported) -> None:  # noqa: N802
        if event.name == "plan":
            self.plan = {name: share for name, share in dict(event.value).items() if isinstance(share, int | float)}
        elif event.name == DISTILLATION:
            self.distillation.add(event.name, event.value["step"], {"kl": event.value["value"]})
        else:
            self.metrics[event.name] = event.value

    def _on_PhaseDone(self, event: ev.PhaseDone) -> None:  # noqa: N802
        self.phase_seconds[event.phase] = event.seconds
        self._finished_weight += self._phase_weight
        self._phase_weight = 0.0
        self.phase_done = 0.0
        self._advance()

    def _on_RunDone(self, event: ev.RunDone) -> None:  # noqa: N802
        self.outcome, self.fraction, self.seconds = "done", 1.0, event.seconds

    def _on_RunFailed(self, event: ev.RunFailed) -> None:  # noqa: N802
        self.outcome, self.message = "failed", event.message

    def _on_RunCancelled(self, event: ev.RunCancelled) -> None:  # noqa: N802
        self.outcome = "cancelled"
        self.message = cancelled_words(event.done_blocks)


def fold(stream: Iterable[ev.Event]) -> Progress:
    """The progress after all events of `stream`."""
    progress = Progress()
    for event in stream:
        progress.add(event)
    return progress


def cancelled_words(done_blocks: int) -> str:
    """What is said of a run that was stopped, also of one that could not say it itself."""
    return f"Cancelled; {kept_words(done_blocks)}, resume goes on from there."


def kept_words(done_blocks: int) -> str:
    """1 finished block is kept, 3 finished blocks are kept."""
    return "1 finished block is kept" if done_blocks == 1 else f"{done_blocks} finished blocks are kept"
