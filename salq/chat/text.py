"""Text that people typed and text that a model wrote, made safe to tokenise, to print in a terminal and to show in a page."""

import re
from dataclasses import dataclass

from salq.core.errors import TextError

PROMPT_CHARACTERS = 2000
"""Longest prompt of one message; what is beyond is cut off, and said."""

# C0 and C1 controls but tab and newline (a terminal obeys some of them, for example ESC), the overrides of the writing
# direction (they make text read differently from what it is), and lone surrogates (no encoder takes them).
_UNSAFE = re.compile("[\x00-\x08\x0b-\x1f\x7f-\x9f\u061c\u200e\u200f\u202a-\u202e\u2066-\u2069\ud800-\udfff]")


@dataclass(frozen=True)
class CleanPrompt:
    """A prompt as it goes to the models, and what was changed about it, as a sentence ('' when nothing was)."""

    text: str
    note: str = ""


def printable(text: str) -> str:
    """`text` without control characters, direction overrides and lone surrogates; every line end becomes a plain newline."""
    return _UNSAFE.sub("", text.replace("\r\n", "\n").replace("\r", "\n"))


def visible(text: str) -> str:
    """`text` with everything that cannot be seen, or that changes how the rest is read, as a sign: a newline as ⏎, a tab as ⇥, ESC as ␛."""
    return _UNSAFE.sub(_sign, text.replace("\n", "⏎").replace("\t", "⇥"))


def _sign(found: re.Match[str]) -> str:
    code = ord(found.group())
    return chr(0x2400 + code) if code < 0x20 else "␡" if code == 0x7F else f"[U+{code:04X}]"  # noqa: PLR2004 - ASCII's control characters


def clean_prompt(text: str, limit: int = PROMPT_CHARACTERS) -> CleanPrompt:
    """What is sent of what a visitor typed: no control characters, no outer blank space, at most `limit` characters.

    Raises TextError when nothing is left.
    """
    cleaned = printable(text).strip()
    if not cleaned:
        raise TextError("The prompt is empty; type a question or the beginning of a text.")
    if len(cleaned) <= limit:
        return CleanPrompt(cleaned)
    note = f"The prompt had {len(cleaned):,} characters; only its first {limit:,} were sent."
    return CleanPrompt(cleaned[:limit].rstrip(), note)
