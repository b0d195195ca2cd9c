"""Prompts and answers are cleaned of what a terminal or a page could obey."""

import pytest

from salq.chat.text import PROMPT_CHARACTERS, clean_prompt, printable
from salq.core.errors import TextError


@pytest.mark.parametrize(
    ("dirty", "clean"),
    [
        ("a\x1b[31mred", "a[31mred"),
        ("a\x00b\x07c\x7f", "abc"),
        ("one\r\ntwo\rthree", "one\ntwo\nthree"),
        ("tab\tstays, newline\nstays", "tab\tstays, newline\nstays"),
        ("\u202eevil\u2066 order", "evil order"),
        ("lone \ud800 surrogate", "lone  surrogate"),
        ("<script>alert(1)</script>", "<script>alert(1)</script>"),  # text, and shown as text
        ("👩‍🔬 naïve 日本", "👩‍🔬 naïve 日本"),
    ],
)
def test_printable_removes_only_what_acts(dirty: str, clean: str) -> None:
    assert printable(dirty) == clean


def test_printable_is_idempotent() -> None:
    once = printable("x\r\n\x1by\u202ez")
    assert printable(once) == once


@pytest.mark.parametrize("empty", ["", "  \n\t ", "\x00\x1b", "\u202e"])
def test_an_empty_prompt_is_refused_with_one_sentence(empty: str) -> None:
    with pytest.raises(TextError, match="empty"):
        clean_prompt(empty)


def test_a_long_prompt_is_cut_and_said() -> None:
    cleaned = clean_prompt("x" * (PROMPT_CHARACTERS + 5))
    assert len(cleaned.text) == PROMPT_CHARACTERS
    assert "2,005" in cleaned.note
    assert clean_prompt("x" * PROMPT_CHARACTERS).note == ""
