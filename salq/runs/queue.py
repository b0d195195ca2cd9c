"""Whose turn it is: one heavy job at a time per device (SALQ_JOBS: more), first come first served, across all processes of a run store.

A run takes a numbered ticket and keeps it until it ends. It may work when no living run with a smaller number needs the same
device. Tickets of dead processes do not count, so a crash never blocks the queue and no clock is needed.
"""

import re
from dataclasses import dataclass
from pathlib import Path

import filelock

from salq.core import settings
from salq.core.files import as_resource_error
from salq.runs.alive import is_alive

FOLDER = ".queue"
_TICKET = re.compile(r"^(\d{9})~([a-z0-9-]+)~([0-9a-f-]+)$")


@dataclass(frozen=True, order=True)
class Ticket:
    """A place in the queue; smaller numbers go first."""

    number: int
    device: str
    run_id: str

    @property
    def name(self) -> str:
        """File name of the ticket."""
        return f"{self.number:09d}~{self.device}~{self.run_id}"

    def conflicts(self, other: "Ticket") -> bool:
        """Whether both may need the same device; `auto` may turn out to be any."""
        return self.device == other.device or "auto" in (self.device, other.device)


class Queue:
    """The queue of one run store."""

    def __init__(self, root: Path) -> None:
        """`root` is the store's folder; nothing is created until a run enters."""
        self._root = root
        self._folder = root / FOLDER

    def enter(self, run_id: str, device: str) -> None:
        """Take the last place; an older ticket of the same run is given up. Raises ResourceError when the disk refuses."""
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            with filelock.FileLock(self._folder / "lock"):
                self.leave(run_id)
                self._drop_dead()
                number = max((ticket.number for ticket in self._tickets()), default=0) + 1
                (self._folder / Ticket(number, _device_key(device), run_id).name).touch()
        except OSError as error:
            raise as_resource_error(error, self._folder) from error

    def leave(self, run_id: str) -> None:
        """Give the ticket up; without one nothing happens."""
        for ticket in self._tickets():
            if ticket.run_id == run_id:
                (self._folder / ticket.name).unlink(missing_ok=True)

    def ahead(self, run_id: str) -> list[str] | None:
        """Living runs of which so many must end before this one may work, first one first; empty: its turn. None: it has no ticket."""
        tickets = self._tickets()
        mine = next((ticket for ticket in tickets if ticket.run_id == run_id), None)
        if mine is None:
            return None
        before = [ticket.run_id for ticket in tickets if ticket < mine and ticket.conflicts(mine) and is_alive(self._root / ticket.run_id)]
        return before[settings.jobs_per_device() - 1 :]

    def _tickets(self) -> list[Ticket]:
        try:
            names = [path.name for path in self._folder.iterdir()]
        except OSError:
            return []
        found = [match.groups() for name in names if (match := _TICKET.match(name))]
        return sorted(Ticket(int(number), device, run_id) for number, device, run_id in found)

    def _drop_dead(self) -> None:
        for ticket in self._tickets():
            if not is_alive(self._root / ticket.run_id):
                (self._folder / ticket.name).unlink(missing_ok=True)


def _device_key(device: str) -> str:
    return {"cuda": "cuda-0"}.get(device, device.replace(":", "-"))
