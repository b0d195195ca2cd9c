"""Keep transformers from drawing bars and printing notices: salq reports by events and by errors, and stdout belongs to the CLI."""

from collections.abc import Iterator
from contextlib import contextmanager

from transformers.utils import logging


@contextmanager
def quiet() -> Iterator[None]:
    """Inside, transformers draws no progress bar and logs errors only; afterwards its settings are as before.

    Never wrap a `yield` of a generator in it: the mode would leak into the consumer.
    """
    verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
    logging.set_verbosity_error()
    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.set_verbosity(verbosity)
        if bars:
            logging.enable_progress_bar()
