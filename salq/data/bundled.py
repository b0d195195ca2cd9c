"""The pair of texts in `assets/text/`, always there: one for calibration, one for evaluation, with hash and licence in manifest.json.

`python -m salq.data.bundled` records the hashes of the files as they are now; do this after changing a text on purpose.
"""

from typing import Any

from salq.core.errors import TextError
from salq.core.files import read_json, write_json
from salq.core.settings import ASSETS
from salq.data.text import ROLES, Role, Text, sha256_of

FOLDER = ASSETS / "text"
MANIFEST = FOLDER / "manifest.json"


def bundled_text(role: Role) -> Text:
    """The bundled text for that role. Raises TextError when a file is missing or not the one whose hash is recorded."""
    manifest = read_manifest()
    try:
        entry = manifest[role]
        content = (FOLDER / entry["file"]).read_text(encoding="utf-8")
        text = Text.of(f"bundled ({role})", entry["title"], content, licence=entry["licence"], origin=entry["made"])
    except (OSError, UnicodeDecodeError, KeyError) as error:
        raise TextError(f"The bundled {role} text in {FOLDER} cannot be read; restore the assets folder of salq.") from error
    recorded = str(entry.get("sha256"))
    if text.sha256 != recorded:
        raise TextError(
            f"The bundled {role} text was changed: its sha256 is {text.sha256[:16]}..., recorded is {recorded[:16]}...; restore the file, "
            "or record the change with `python -m salq.data.bundled`."
        )
    return text


def read_manifest() -> dict[Role, dict[str, Any]]:
    """role -> file, title, sha256, bytes, licence, made, and what else is known. Raises TextError when it is missing or damaged."""
    try:
        manifest = read_json(MANIFEST)
        return {role: dict(manifest[role]) for role in ROLES if role in manifest}
    except (OSError, ValueError, KeyError, TypeError) as error:
        raise TextError(f"{MANIFEST} is missing or damaged; restore the assets folder of salq.") from error


def record(role: Role, **fields: Any) -> None:
    """Write the current hash and size of a bundled text into the manifest, with `fields` beside what is already recorded."""
    manifest = read_json(MANIFEST) if MANIFEST.is_file() else {}
    entry = {"file": f"{role}.txt", **manifest.get(role, {}), **fields}
    content = (FOLDER / entry["file"]).read_text(encoding="utf-8")
    manifest[role] = entry | {"sha256": sha256_of(content), "bytes": len(content.encode())}
    write_json(MANIFEST, {name: manifest[name] for name in ROLES if name in manifest})


if __name__ == "__main__":
    for each in ROLES:
        record(each)
