"""What a text source is by its name, before anything is used: known words, how much a model writes, whether a file reads. Light."""

import re
from functools import lru_cache
from typing import Literal

from salq.core.errors import TextError
from salq.core.files import path_of
from salq.core.settings import is_public_host
from salq.data.corpora import C4, CORPORA, WIKITEXT2
from salq.data.text import Role

Form = Literal["self", "chats"]
"""What a model writes: documents, or chats of a user and the model. Also the name of the text source, as in `chats:20000`."""
FORMS: tuple[Form, Form] = ("self", "chats")
SELF_TOKENS = 20_000
MOST_SELF_TOKENS = 1_000_000
MOST_FILE_BYTES = 200_000_000
WORDS = ("auto", "bundled", *CORPORA)
"""Sources that are neither written by the model nor a path."""
_WRITTEN = re.compile(r"(self|chats):(\d+)")


def text_sources() -> list[tuple[str, str]]:
    """(value, label) of every choice that needs no typing, for pickers. Asks no network."""
    return [
        ("auto", "auto (WikiText-2 when the hub answers, else the bundled text)"),
        ("bundled", "bundled text (always there)"),
        ("wikitext2", WIKITEXT2.title),
        ("c4", C4.title),
        (f"self:{SELF_TOKENS}", f"the model's own words ({SELF_TOKENS} tokens, data-free)"),
        (f"chats:{SELF_TOKENS}", f"the model's own chats ({SELF_TOKENS} tokens, data-free)"),
    ]


def is_path(source: str) -> bool:
    """Whether `source` can only be a file."""
    return source not in WORDS and form_of(source) is None


def form_of(source: str) -> Form | None:
    """What the model writes when it is the source, however many tokens; None for any other source."""
    return next((form for form in FORMS if source.partition(":")[0] == form), None)


def written_tokens(source: str, role: Role) -> int:
    """How many tokens `self`, `self:N`, `chats` or `chats:N` asks for. Raises TextError for other numbers, and for the role of evaluation."""
    if role == "evaluation":
        raise TextError("Text that the model writes itself is for calibration only; evaluate on auto, bundled, wikitext2, c4 or a file.")
    form, match = form_of(source), _WRITTEN.fullmatch(source)
    count = int(match.group(2)) if match else SELF_TOKENS if source == form else 0
    if not 0 < count <= MOST_SELF_TOKENS:
        raise TextError(f"Text source {source!r} is not understood; write {form}:N with N from 1 to {MOST_SELF_TOKENS} tokens.")
    return count


def read_file(source: str) -> str:
    """All of a person's own text. Raises TextError: a public host, no such file, too large, not UTF-8, empty."""
    known = ", ".join(value for value, _ in text_sources())
    if is_public_host():
        raise TextError(f"Text source {source!r} is not known; choose one of: {known} (files cannot be opened on a public host).")
    path = path_of(source)
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise TextError(f"{source} is larger than {MOST_FILE_BYTES // 1_000_000} MB; cut it down, a few megabytes are plenty.")
        content = path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{source} is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}); save it as UTF-8 text.") from error
    except (OSError, ValueError) as error:
        raise TextError(f"{source!r} is neither a readable file nor a known text source ({known}); mend the path, or use one of these.") from error
    if not content.strip():
        raise TextError(f"{path.name} is empty; give a UTF-8 text of at least a few thousand words.")
    return content


def check_source(source: str, role: Role) -> None:
    """Raise the TextError of `load_text`, as far as it shows without a model and without the network."""
    if form_of(source) is not None:
        written_tokens(source, role)
    elif is_path(source):
        try:
            found = path_of(source).stat()
        except (OSError, ValueError):
            read_file(source)  # says what is wrong
            return
        _check_file(source, found.st_size, found.st_mtime_ns)


@lru_cache(maxsize=64)
def _check_file(source: str, size: int, changed: int) -> None:
    """A form asks again with every key: a good file is read once, until its size or time of change is another; a bad one is not remembered."""
    read_file(source)
