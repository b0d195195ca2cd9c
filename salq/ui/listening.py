"""How the page listens: options for Gradio's event listeners, one word per kind of handler.

Without `LATEST` or `EVERY` Gradio drops what happens while an event of the same listener is on its way (`once`): right for a button and a timer,
wrong for anything that says what a person wants now, which on a slow line or a busy machine would stay as it was.
"""

from typing import Any

QUIET: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden", "concurrency_limit": None}
"""For a handler that answers at once."""
LATEST: dict[str, Any] = {"trigger_mode": "always_last"}
"""For a listener to controls: after the answer on its way the handler is called once more, with their values of then."""
EVERY: dict[str, Any] = {"trigger_mode": "multiple"}
"""For a handler that reads its event's data: `always_last` would gather the inputs anew, and send the first event's data again."""
