"""Whose call this is, and what a visitor of a shared host may change: their own runs, so many at a time. Kept in this process, never on disk."""

import hashlib
import secrets
import threading
from collections import OrderedDict
from contextvars import ContextVar
from pathlib import Path
from typing import Any

from salq.core.errors import ConfigError, SalqError
from salq.runs.requests import CalibrateRequest, ExploreRequest
from salq.runs.store import RunStore

OWN_RUNS = 6
"""Runs that one visitor may have waiting or running."""
ALL_RUNS = 24
"""Runs that all visitors together may have waiting or running."""
REMEMBERED = 4096
"""Runs whose owner is remembered."""

_visitor: ContextVar[str] = ContextVar("visitor", default="")
_salt = secrets.token_bytes(16)


def visiting(request: Any) -> None:
    """Note for the handlers of this call who made it: the name they logged in with, else the address they come from, as a salted hash.

    What a browser says about itself (a session, a kept id) is not asked: anybody can say it.
    """
    found = request[0] if isinstance(request, list) and request else request
    host = getattr(getattr(found, "client", None), "host", None)
    # Behind a proxy every call comes from the proxy, which adds the address it saw to this header: nobody can make theirs equal to another's.
    passed_on = (getattr(found, "headers", None) or {}).get("x-forwarded-for", "") if host else ""
    known = getattr(found, "username", None) or (f"{host} {passed_on}" if host else "")
    _visitor.set(hashlib.sha256(_salt + str(known).encode()).hexdigest()[:16] if known else "")


class SharedStore(RunStore):
    """The run store as visitors of a shared host have it: everybody may look, only the visitor who started a run may stop or resume it."""

    def __init__(self, root: Path) -> None:
        """Nobody has started anything yet."""
        super().__init__(root)
        self._owners: OrderedDict[str, str] = OrderedDict()
        self._lock = threading.Lock()

    def create(self, request: CalibrateRequest | ExploreRequest) -> str:
        """Store a request of the current visitor. Raises ConfigError when they, or all together, have as many runs as this host takes."""
        with self._lock:
            active = [run_id for run_id in self._owners if self._is_active(run_id)]
            own = [run_id for run_id in active if self._owners[run_id] == _visitor.get()]
            if len(own) >= OWN_RUNS:
                raise ConfigError(f"You have {len(own)} runs waiting or running on this shared host, and {OWN_RUNS} is the limit; wait for one.")
            if len(active) >= ALL_RUNS:
                raise ConfigError(f"{len(active)} runs are waiting or running on this shared host, which is its limit; try again later.")
            run_id = super().create(request)
            self._owners[run_id] = _visitor.get()
            while len(self._owners) > REMEMBERED:
                self._owners.popitem(last=False)
        return run_id

    def cancel(self, run_id: str) -> None:
        """Stop a run of this visitor. Raises ConfigError for another's."""
        self._check_owner(run_id)
        super().cancel(run_id)

    def clear_cancel(self, run_id: str) -> None:
        """The first step of every start and resume. Raises ConfigError for another's run."""
        self._check_owner(run_id)
        super().clear_cancel(run_id)

    def delete(self, run_id: str) -> None:
        """Refused: what is removed here is decided by the host's quota."""
        raise ConfigError("On a public host runs are not deleted by visitors.")

    def pin(self, run_id: str, *, pinned: bool) -> None:
        """Refused: a pin would take the disk from all others."""
        raise ConfigError("On a public host runs are not pinned by visitors.")

    def may_change(self, run_id: str) -> bool:
        """Whether the current visitor started it."""
        return bool(_visitor.get()) and self._owners.get(run_id) == _visitor.get()

    def _check_owner(self, run_id: str) -> None:
        self.folder(run_id)
        if not self.may_change(run_id):
            raise ConfigError("On a public host only your own run can be stopped or resumed.")

    def _is_active(self, run_id: str) -> bool:
        try:
            return self.get(run_id).is_active
        except SalqError:
            return False
