"""What Calibrate shows of a run, without gradio: the fold of its events as headline, log, figures, tables and final numbers."""

import threading
import time
from collections import OrderedDict, deque
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

from salq.core import events as ev
from salq.core.errors import SalqError
from salq.core.progress import BlockCurve, Progress, cancelled_words, start_terms
from salq.figures import payload
from salq.figures.calibration import depth_errors, distillation_curve, loss_terms
from salq.runs.blind import tally
from salq.runs.kept import kept_runs
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunInfo, RunStore
from salq.ui.html import duration

if TYPE_CHECKING:
    from salq.runs.log import Follower

Facts = list[tuple[str, str, str]]
POINTS_PER_DRAWING = 40
MAX_BLOCKS = 1000
"""No LLaMA has more; a damaged log may say so."""
TABLE_HEADER = ["block", "output error", "mean weight error", "first loss", "last loss", "terms before the first step"]


def run_to_show(store: RunStore, wanted: str, *, public: bool) -> str:
    """The visitor's own run when it still exists; else, on a person's own machine, the newest that is being worked on; else ''."""
    try:
        if wanted and isinstance(store.request(wanted), CalibrateRequest):
            return wanted
    except SalqError:
        pass
    if public:
        return ""  # the runs of other visitors are theirs
    active = [info for info in store.list() if info.is_active and isinstance(info.request, CalibrateRequest)]
    return next((info.id for info in active if info.status == "running"), active[0].id if active else "")


@dataclass(frozen=True)
class RunView:
    """A run as the tab draws it. `stamp` changes whenever anything of it does."""

    info: RunInfo
    progress: Progress
    log: list[str]
    is_stopping: bool
    """Somebody asked it to stop and it has not yet."""
    stamp: str
    blind: str = ""
    """What its blind tests have shown so far, in words."""

    @property
    def blocks(self) -> list[int]:
        """Blocks that have a loss curve."""
        return sorted(block for block, curve in self.progress.curves.items() if curve.steps)

    def stamps(self, block: int | None) -> dict[str, Any]:
        """What each part of the panel is made of: a part is worth sending again only when its stamp is another one.

        block: the one whose loss is drawn; None for the latest. A browser on the machine that calibrates takes its share of the cores
        for every part that it draws.
        """
        return {
            "id": self.info.id,
            "headline": self.stamp,
            "state": [self.info.status, self.is_stopping, len(self.info.metrics), self.blind],
            "blocks": [self.blocks, block],
            "loss": self._loss_stamp(block),
            "errors": [len(self.progress.output_errors), self.progress.n_blocks],
            "log": self.log[-1:],
        }

    def _loss_stamp(self, block: int | None) -> list[Any]:
        if block is None and self.progress.distillation.steps:
            return ["distillation", self._drawn_points(self.progress.distillation)]
        chosen = block if block is not None else next(reversed(self.blocks), None)
        return [chosen, 0 if chosen is None else self._drawn_points(self.progress.curves[chosen])]

    def _drawn_points(self, curve: BlockCurve) -> list[Any]:
        """Changes when a curve is worth drawing again: at its first point, then every few, and at the end of the run."""
        points = len(curve.steps)
        return [bool(points), points // POINTS_PER_DRAWING if self.is_active else points]

    @property
    def is_active(self) -> bool:
        """Whether it will change by itself."""
        return self.info.is_active

    @property
    def headline(self) -> str:
        """Title and state in one line."""
        return f"{self.info.title}: {'stopping' if self.is_stopping else STATUS_WORDS.get(self.info.status, self.info.status)}"


STATUS_WORDS = {
    "created": "not started",
    "queued": "waiting for its turn",
    "running": "running",
    "done": "finished",
    "failed": "failed",
    "cancelled": "cancelled",
    "interrupted": "interrupted",
    "unreadable": "cannot be read",
}


class Watcher:
    """Reads the event logs of the runs that somebody looks at, each from where it stopped; shared by all visitors."""

    LINES = 40
    RUNS = 8

    def __init__(self, store: RunStore) -> None:
        """Nothing is read yet."""
        self._store = store
        self._lock = threading.Lock()
        self._seen: OrderedDict[str, tuple[Follower, deque[str]]] = OrderedDict()

    def view(self, run_id: str) -> RunView:
        """The run as it is now. Raises UnknownNameError when it does not exist."""
        judged = tally(self._store, run_id).words
        info = self._store.get(run_id)  # before the events: once it says that the run has ended, they hold its end
        with self._lock:
            follower, lines = self._entry(run_id)
            for event in follower.update():
                if words := words_of(event):
                    lines.append(words)
            progress = _snapshot(follower.progress)
            curve = progress.curves.get(progress.block) if progress.block is not None else None
            points = len(curve.steps) if curve else 0
            points += len(progress.distillation.steps)
            stamp = (
                f"{run_id} {info.status} {info.position} {progress.last_at} {progress.blocks_done} {progress.block} {points} {progress.fraction:.4f}"
            )
            stamp += f" {round(info.wait or 0, -1)} {info.silence_words}"
            is_stopping = info.is_active and self._store.is_cancel_requested(run_id)
            return RunView(info, progress, list(lines), is_stopping, f"{stamp} {is_stopping}", f"Blind test: {judged}" if judged else "")

    def _entry(self, run_id: str) -> "tuple[Follower, deque[str]]":
        if run_id not in self._seen:
            self._seen[run_id] = (self._store.follow(run_id), deque(maxlen=self.LINES))
        self._seen.move_to_end(run_id)
        while len(self._seen) > self.RUNS:
            self._seen.popitem(last=False)
        return self._seen[run_id]


def _snapshot(progress: Progress) -> Progress:
    """A copy that the next update does not change; the points themselves never change."""

    def copied(curve: BlockCurve) -> BlockCurve:
        return replace(curve, stages=list(curve.stages), steps=list(curve.steps), losses=list(curve.losses))

    return replace(
        progress,
        curves={block: copied(curve) for block, curve in progress.curves.items()},
        distillation=copied(progress.distillation),
        output_errors=dict(progress.output_errors),
        weight_errors=dict(progress.weight_errors),
        details=dict(progress.details),
        metrics=dict(progress.metrics),
    )


def words_of(event: ev.Event) -> str:
    """One line of the log; '' for events that happen too often to be told."""
    words = _words(event)
    if not words or event.at is None:
        return words
    try:
        return f"{time.strftime('%H:%M:%S', time.localtime(event.at))}  {words}"
    except (OverflowError, ValueError, OSError):  # a clock that cannot be
        return words


def _words(event: ev.Event) -> str:
    if isinstance(event, ev.RunStarted):
        return "resumed" if event.resumed else "started"
    if isinstance(event, ev.PhaseStarted):
        return f"{event.phase}: {event.amount}"
    if isinstance(event, ev.PhaseDone):
        return f"{event.phase} done in {duration(event.seconds)}"
    if isinstance(event, ev.BlockDone):
        error = "" if event.output_error is None else f", relative output error {event.output_error:.3g}"
        return f"block {event.block} done in {duration(event.seconds)}{error}"
    if isinstance(event, ev.RunDone):
        return f"finished in {duration(event.seconds)}"
    if isinstance(event, ev.RunFailed):
        return f"failed: {event.message}"
    if isinstance(event, ev.RunCancelled):
        return cancelled_words(event.done_blocks).lower()
    return ""


def loss_figure(view: RunView, block: int | None) -> str | None:
    """Loss curves of `block`, or of what came last (a block, or the end-to-end pass); None when no optimizer step was taken yet."""
    if block is None and view.progress.distillation.steps:
        return payload(distillation_curve(view.progress.distillation), "salq-distillation")
    blocks = view.blocks
    if not blocks:
        return None
    chosen = block if block in blocks else blocks[-1]
    return payload(loss_terms(view.progress.curves[chosen], chosen), f"salq-loss-block{chosen}")


def errors_figure(view: RunView) -> str | None:
    """Relative error of every finished block; None before the first."""
    progress = view.progress
    if not progress.output_errors:
        return None
    recipe = view.info.request.method if isinstance(view.info.request, CalibrateRequest) else ""
    n_blocks = max(min(progress.n_blocks, MAX_BLOCKS), len(progress.output_errors))
    output = [progress.output_errors.get(block) for block in range(n_blocks)]
    weights = [_mean(progress.weight_errors.get(block, {}).values()) for block in range(n_blocks)]
    return payload(depth_errors(output, weights, recipe), "salq-block-errors")


def errors_table(view: RunView) -> list[list[Any]]:
    """The same in numbers: block, output error, mean weight error, first and last total loss, how large each term and its gradient is."""
    rows = []
    for block in sorted(view.progress.output_errors):
        curve = view.progress.curves.get(block)
        ends = [sum(curve.losses[0].values()), sum(curve.losses[-1].values())] if curve and curve.losses else [None, None]
        values = [view.progress.output_errors[block], _mean(view.progress.weight_errors.get(block, {}).values()), *ends]
        terms = "; ".join(term.words for term in start_terms(view.progress.details.get(block, {})))
        rows.append([block, *(None if value is None else float(f"{value:.4g}") for value in values), terms])
    return rows


def result_facts(metrics: Mapping[str, Any]) -> tuple[Facts, str]:
    """The final numbers, and where they come from: text, windows, tokens, reference."""
    if "kl" not in metrics:
        return [], ""
    shown = {name: _number(metrics.get(name)) for name in NUMBERS}
    facts: Facts = [
        ("Perplexity", shown["perplexity"], f"± {shown['perplexity_se']}; original {shown['perplexity_original']}"),
        ("KL from the original", f"{shown['kl']} nats per token", f"median {shown['kl_median']}"),
        ("Same first choice", _percent(metrics.get("top1_agreement")), "of tokens"),
        ("Size", f"{shown['bits_per_weight']} bits per weight", f"{shown['size_mb']} MB; whole model {shown['model_size_mb']} MB"),
        ("Took", duration(metrics.get("seconds")), f"peak memory {shown['peak_memory_gb']} GB"),
    ]
    note = f"Measured on {metrics.get('text')}: {metrics.get('windows')} windows of {metrics.get('window')} tokens, which calibration did not see."
    done, of = metrics.get("n_blocks"), metrics.get("of_blocks")
    if done and of and done < of:
        note += f" Only the first {done} of {of} blocks are quantized."
    if metrics.get("reference") not in {None, "", "full precision"}:
        note += f" The original here is a {metrics['reference']}."
    return facts, note


NUMBERS = (
    "perplexity", "perplexity_se", "perplexity_original", "kl", "kl_median", "bits_per_weight", "size_mb", "model_size_mb", "peak_memory_gb",
)  # fmt: skip


def kept_facts(model: str, bits: int) -> tuple[Facts, str]:
    """Calibrations of this model that the repository keeps, at these bits, and what they were measured on: shown before anybody starts one."""
    try:
        kept = [one for one in kept_runs(model) if one.metrics.get("bits") == bits and one.metrics.get("perplexity") is not None]
    except SalqError:
        return [], ""
    facts = [(one.title, f"perplexity {_number(one.metrics['perplexity'])}", f"took {duration(one.metrics.get('seconds'))}") for one in kept]
    first = kept[0].metrics if kept else {}
    note = (
        f"Kept results of this repository at these bits, on {first.get('text')}: {first.get('windows')} windows of {first.get('window')} tokens; "
        f"the original has perplexity {_number(first.get('perplexity_original'))} ({first.get('reference')})."
    )
    return facts, note if kept else ""


def _mean(values: Any) -> float | None:
    numbers = [value for value in values if value is not None]
    return sum(numbers) / len(numbers) if numbers else None


def _number(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, int | float) and not isinstance(value, bool) else "not finite"


def _percent(value: Any) -> str:
    return f"{value:.1%}" if isinstance(value, int | float) else "not finite"
