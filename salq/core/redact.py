"""Text without secrets: what looks like a token or a password never stands in an error, a log that the page shows, or a link. Light."""

import re

HIDDEN = "(hidden)"
_SECRETS = (
    (re.compile(r"\bhf_[A-Za-z0-9]{8,}"), HIDDEN),
    (re.compile(r"(?i)\b(bearer|authorization\W{1,5}basic)\s+[A-Za-z0-9._~+/=-]{8,}"), rf"\1 {HIDDEN}"),  # "basic" alone is English
    (re.compile(r"(?i)\b(token|password|secret|api[_-]?key)(\s*[=:]\s*)[^\s,;'\"&]{4,}"), rf"\1\2{HIDDEN}"),
    (re.compile(r"(?<=://)[^/\s@:]{1,200}:[^/\s@]{1,200}(?=@)"), HIDDEN),
)


def redacted(text: str) -> str:
    """`text` with hub tokens, authorization headers, `password=...` and the credentials of addresses replaced by `(hidden)`."""
    for pattern, shown in _SECRETS:
        text = pattern.sub(shown, text)
    return text
