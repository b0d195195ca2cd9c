"""Secrets never reach a sentence that people read."""

import pytest

from salq.core.errors import Diverged, ModelError
from salq.core.redact import redacted


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("no: hf_AbCdEf1234567890", "no: (hidden)"),
        ("Authorization: Bearer abc.def-123456", "Authorization: Bearer (hidden)"),
        ("authorization: Basic dXNlcjpwYXNz", "authorization: Basic (hidden)"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz'}", "{'Authorization': 'Basic (hidden)'}"),
        ("basic arithmetic failed", "basic arithmetic failed"),
        ("at https://ann:pa55@mirror.example/x", "at https://(hidden)@mirror.example/x"),
        ("?token=abcdef&x=1", "?token=(hidden)&x=1"),
        ("run `hf auth login` or set HF_TOKEN", "run `hf auth login` or set HF_TOKEN"),
        ("7 tokens: 12 of them", "7 tokens: 12 of them"),
    ],
)
def test_what_looks_like_a_secret_is_hidden(text: str, shown: str) -> None:
    assert redacted(text) == shown


def test_every_error_hides_them() -> None:
    assert str(ModelError("The hub refused hf_AbCdEf1234567890.")) == "The hub refused (hidden)."
    assert "block 3" in str(Diverged(3, "output", 1, None))
