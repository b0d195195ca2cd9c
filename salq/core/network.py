"""Does the model hub answer? Found out within two seconds and remembered, because the hub client's own retries take many times longer."""

import http.client
import threading
import time
import urllib.request

from salq.core.errors import SalqError
from salq.core.files import read_json, write_json
from salq.core.settings import home, hub_endpoint, hub_is_disabled

PROBE_SECONDS = 2.0
REMEMBER_SECONDS = 600.0
PROBE_FILE = "HuggingFaceTB/SmolLM2-135M-Instruct/resolve/main/config.json"
"""A small public file that every mirror of the hub serves."""


def hub_answers() -> bool:
    """True when the hub can be used: not switched off by the user, and it answered within 2 s now or in the last 10 minutes.

    The answer is kept in `hub.json` in salq's home, so that every process of this user shares it.
    """
    if hub_is_disabled():
        return False
    endpoint = hub_endpoint()
    known = _remembered(endpoint)
    if known is not None:
        return known
    answer = _probe(f"{endpoint}/{PROBE_FILE}")
    _remember(endpoint, answer)
    return answer


def _probe(url: str) -> bool:
    """One HEAD request. In a thread, because looking up a name can take longer than any timeout of the request itself."""
    answers: list[bool] = []
    thread = threading.Thread(target=lambda: answers.append(_responds(url)), daemon=True)
    thread.start()
    thread.join(PROBE_SECONDS)
    return bool(answers) and answers[0]


def _responds(url: str) -> bool:
    try:
        with urllib.request.urlopen(urllib.request.Request(url, method="HEAD"), timeout=PROBE_SECONDS):
            return True
    except (OSError, ValueError, http.client.HTTPException):  # no network, a refusal (status 400 and above), no address
        return False


def _remembered(endpoint: str) -> bool | None:
    try:
        note = read_json(home() / "hub.json")
        is_recent = note["endpoint"] == endpoint and 0 <= time.time() - note["at"] < REMEMBER_SECONDS
        return bool(note["answers"]) if is_recent else None
    except (OSError, ValueError, KeyError, TypeError):
        return None


def _remember(endpoint: str, answers: bool) -> None:
    try:
        write_json(home() / "hub.json", {"endpoint": endpoint, "answers": answers, "at": time.time()})
    except SalqError:
        pass  # nowhere to write: the next call probes again
