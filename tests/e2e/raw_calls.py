"""Calls every endpoint of the page raw, as on a public host, and prints what came of it; in a process of its own, because Gradio leaves loops open.

SALQ_HOME=... SPACE_ID=... python -m tests.e2e.raw_calls CANARY ID...
"""

import asyncio
import json
import sys
from pathlib import Path

from benchmarks.endpoints import calls, endpoints, opened_below, perform
from salq.core import settings
from salq.runs import worker
from salq.runs.store import RunStore
from salq.ui import sidebar
from salq.ui.page import build_page


def main(canary: Path, ids: list[str]) -> int:
    """A call of every endpoint; no process comes up for the runs that one starts."""
    started: list[str] = []
    opened: list[str] = []

    def start(store: RunStore, run_id: str) -> bool:
        store.clear_cancel(run_id)
        started.append(run_id)
        return True

    worker.start = start
    sidebar._warm.set()  # nobody clicks here: nothing has to be imported ahead
    page = build_page(RunStore(settings.runs_dir()))
    sys.addaudithook(opened_below(canary, opened))
    more = (*ids, str(canary), str(canary / "text.txt"), f"file://{canary}/text.txt", f"../../{canary}")

    async def all_calls() -> list[str]:
        return [await perform(page, call) for call in calls(page, 1, seed=1, more=more)]

    told = asyncio.run(all_calls())
    sys.stdout.write(json.dumps({"endpoints": len(endpoints(page)), "told": told, "opened": opened, "started": started}) + "\n")
    return 0


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), sys.argv[2:]))
