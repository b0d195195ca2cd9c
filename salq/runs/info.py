"""A run as lists show it: what was asked, how far it is, its place in the queue, and whether it still gives news."""

import time
from dataclasses import dataclass, field
from typing import Any, Literal

from salq.core.progress import Progress
from salq.runs.requests import CalibrateRequest, ExploreRequest

Status = Literal["created", "queued", "running", "done", "failed", "cancelled", "interrupted", "unreadable"]
AnyRequest = CalibrateRequest | ExploreRequest
ACTIVE: tuple[Status, ...] = ("queued", "running")
QUIET_SECONDS = 300.0
"""A running run that wrote no event for so long may hang. It is said and not killed: one step of a large model on a slow disk may take longer."""


@dataclass(frozen=True)
class RunInfo:
    """A run as a list shows it. `progress` has no step-by-step curves (`RunStore.follow` has); `position` counts the runs ahead in the queue."""

    id: str
    title: str
    kind: str
    status: Status
    created: float
    request: AnyRequest | None
    progress: Progress
    metrics: dict[str, Any] = field(default_factory=dict)
    position: int | None = None
    wait: float | None = None
    """Seconds until its turn, from what the runs ahead still take; None when that is not known or it does not wait."""
    news_at: float | None = None
    """When its log was last written, seconds since the epoch."""
    pinned: bool = False
    """Whether the quota leaves it alone."""
    problem: str = ""

    @property
    def is_active(self) -> bool:
        """Whether a process works on it or waits to."""
        return self.status in ACTIVE

    @property
    def can_resume(self) -> bool:
        """Whether it has not come to its end; what a finished run may have lost is looked for by `repeat.is_whole`, which opens its blocks."""
        return self.status in {"created", "failed", "cancelled", "interrupted"}

    @property
    def silence(self) -> float | None:
        """Seconds without news of a running run, once they are many; None otherwise (also when the clock was set back)."""
        return silence_since(self.news_at) if self.status == "running" else None

    @property
    def silence_words(self) -> str:
        """The rest of a sentence for people; '' while there is news."""
        return "" if self.silence is None else f"no news for {self.silence / 60:.0f} min"


def silence_since(news_at: float | None) -> float | None:
    """Seconds since `news_at`, once they are many; None before, and without a time."""
    seconds = 0.0 if news_at is None else time.time() - news_at
    return seconds if seconds >= QUIET_SECONDS else None
