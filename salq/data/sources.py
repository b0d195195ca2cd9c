"""Which text is used: `auto`, `bundled`, `wikitext2`, `c4`, `self:N` (the model's own words), `chats:N` (its own chats)
or the path of a UTF-8 file.

Calibration and evaluation never share text: they get different splits, different bundled files, different parts of a file, or different files.
"""

import re
from collections.abc import Collection
from pathlib import Path

from salq.core.errors import ConfigError, TextError
from salq.core.network import hub_answers
from salq.core.settings import is_public_host
from salq.data.bundled import bundled_text
from salq.data.corpora import C4, CORPORA, WIKITEXT2
from salq.data.self_written import WRITINGS, Form, Writer, self_written_text
from salq.data.text import ROLES, Role, Text

SELF = re.compile(r"(self|chats):(\d+)")
SELF_TOKENS = 20_000
MOST_SELF_TOKENS = 1_000_000
MOST_FILE_BYTES = 200_000_000
CALIBRATION_SHARE = 0.8
"""Of a user's file: the first 80 % are for calibration, the rest for evaluation."""


def load_text(source: str = "auto", role: Role = "calibration", model: Writer | None = None, *, calibrated_on: Collection[str] | None = None) -> Text:
    """The text that `source` names, for that role. `self:N` and `chats:N` need the model that writes them.

    A person's own file gives its first 80 % to calibration and its last 20 % to evaluation. calibrated_on: the sources that whatever is evaluated was
    calibrated on; a file that is none of them is evaluated whole. None: not known, so the last 20 %.
    Raises TextError (not available, empty, not UTF-8, a path on a public host) and ConfigError (an unknown role).
    """
    if role not in ROLES:
        raise ConfigError(f"Text role {role!r} is not known; use calibration or evaluation.")
    if source == "auto":
        return _auto(role)
    if source == "bundled":
        return bundled_text(role)
    if source in CORPORA:
        return CORPORA[source].text(role)
    for form in WRITINGS:
        if source.partition(":")[0] == form:
            return _self_written(source, form, role, model)
    return _file(source, role, calibrated_on)


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


def auto_source(role: Role = "calibration") -> str:
    """What `auto` means now: "wikitext2" when it is here or the hub answers (found out within 2 s, remembered), else "bundled"."""
    return "wikitext2" if WIKITEXT2.is_local(role) or hub_answers() else "bundled"


def _auto(role: Role) -> Text:
    if auto_source(role) == "wikitext2":
        try:
            return WIKITEXT2.text(role)
        except TextError:
            pass  # a hub that answers but does not deliver: the text says by its name which one is in use
    return bundled_text(role)


def _self_written(source: str, form: Form, role: Role, model: Writer | None) -> Text:
    if role == "evaluation":
        raise TextError("Text that the model writes itself is for calibration only; evaluate on auto, bundled, wikitext2, c4 or a file.")
    if model is None:
        raise TextError("Text that the model writes itself cannot be had here, without a model; use auto, bundled, wikitext2, c4 or a file.")
    match = SELF.fullmatch(source)
    count = int(match.group(2)) if match else SELF_TOKENS if source == form else 0
    if not 0 < count <= MOST_SELF_TOKENS:
        raise TextError(f"Text source {source!r} is not understood; write {form}:N with N from 1 to {MOST_SELF_TOKENS} tokens.")
    return self_written_text(model, count, form)


def _file(source: str, role: Role, calibrated_on: Collection[str] | None) -> Text:
    known = ", ".join(value for value, _ in text_sources())
    if is_public_host():
        raise TextError(f"Text source {source!r} is not known; choose one of: {known} (files cannot be opened on a public host).")
    path = _path(source)
    content = _read(path, source, known)
    if not content.strip():
        raise TextError(f"{path.name} is empty; give a UTF-8 text of at least a few thousand words.")
    if role == "evaluation" and calibrated_on is not None and not any(_may_be_seen(content, one) for one in calibrated_on):
        return Text.of(path.name, f"{path.name}, all of it", content, licence="the user's own file", origin="a local file")
    part, share = _part(content, role)
    return Text.of(f"{path.name} ({share})", f"{path.name}, {share}", part, licence="the user's own file", origin="a local file")


def _path(source: str) -> Path:
    return Path(source).expanduser() if source.startswith("~/") else Path(source)


def _may_be_seen(content: str, source: str) -> bool:
    """Whether calibration on `source` may have read this content: the same file, a copy of it, or a file that is gone, which nobody can tell."""
    if source in {"auto", "bundled", *WRITINGS, *CORPORA} or SELF.fullmatch(source):
        return False
    try:
        return _path(source).read_text(encoding="utf-8-sig") == content
    except (OSError, ValueError):
        return True


def _read(path: Path, source: str, known: str) -> str:
    try:
        if path.stat().st_size > MOST_FILE_BYTES:
            raise TextError(f"{source} is larger than {MOST_FILE_BYTES // 1_000_000} MB; cut it down, a few megabytes are plenty.")
        return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        raise TextError(f"{source} is not UTF-8 (byte {error.start} is 0x{error.object[error.start]:02x}); save it as UTF-8 text.") from error
    except (OSError, ValueError) as error:
        raise TextError(f"{source!r} is neither a readable file nor a known text source ({known}).") from error


def _part(content: str, role: Role) -> tuple[str, str]:
    """The part of a user's text that serves that role, cut at a line or word, and its name."""
    middle = int(len(content) * CALIBRATION_SHARE)
    for separator in ("\n\n", "\n", " "):
        if (cut := content.rfind(separator, 0, middle)) > middle // 2:
            middle = cut
            break
    return (content[:middle], "first 80 %") if role == "calibration" else (content[middle:], "last 20 %")
