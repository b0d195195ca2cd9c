"""Which text is used: `auto`, `bundled`, `wikitext2`, `c4`, `self:N` (the model's own words), `chats:N` (its own chats)
or the path of a UTF-8 file.

Calibration and evaluation never share text: they get different splits, different bundled files, different parts of a file, or different files.
"""

from collections.abc import Collection

from salq.core.errors import ConfigError, TextError
from salq.core.files import path_of
from salq.core.network import hub_answers
from salq.data.bundled import bundled_text
from salq.data.corpora import CORPORA, WIKITEXT2
from salq.data.names import Form, form_of, is_path, read_file, written_tokens
from salq.data.self_written import Writer, self_written_text
from salq.data.text import ROLES, Role, Text

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
    form = form_of(source)
    return _file(source, role, calibrated_on) if form is None else _self_written(source, form, role, model)


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
    count = written_tokens(source, role)
    if model is None:
        raise TextError("Text that the model writes itself cannot be had here, without a model; use auto, bundled, wikitext2, c4 or a file.")
    return self_written_text(model, count, form)


def _file(source: str, role: Role, calibrated_on: Collection[str] | None) -> Text:
    name, content = path_of(source).name, read_file(source)
    if role == "evaluation" and calibrated_on is not None and not any(_may_be_seen(content, one) for one in calibrated_on):
        return Text.of(name, f"{name}, all of it", content, licence="the user's own file", origin="a local file")
    part, share = _part(content, role)
    return Text.of(f"{name} ({share})", f"{name}, {share}", part, licence="the user's own file", origin="a local file")


def _may_be_seen(content: str, source: str) -> bool:
    """Whether calibration on `source` may have read this content: the same file, a copy of it, or a file that is gone, which nobody can tell."""
    if not is_path(source):
        return False
    try:
        return path_of(source).read_text(encoding="utf-8-sig") == content
    except (OSError, ValueError):
        return True


def _part(content: str, role: Role) -> tuple[str, str]:
    """The part of a user's text that serves that role, cut at a line or word, and its name."""
    middle = int(len(content) * CALIBRATION_SHARE)
    for separator in ("\n\n", "\n", " "):
        if (cut := content.rfind(separator, 0, middle)) > middle // 2:
            middle = cut
            break
    return (content[:middle], "first 80 %") if role == "calibration" else (content[middle:], "last 20 %")
