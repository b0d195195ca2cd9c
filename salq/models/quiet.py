"""Keep transformers and the hub client from drawing bars and printing notices: salq speaks by events and errors, stdout is the CLI's."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, neither transformers nor the hub client draws a bar, and transformers logs errors only; afterwards all is as before.

    Never wrap a `yield` of a generator in it: the mode would leak into the consumer.
    """
    verbosity, had_bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()  # switches the hub client's bars too
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if had_bars:
            logging.enable_progress_bar()
