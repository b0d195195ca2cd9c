"""A text with its provenance. Every number that salq shows names the text that made it."""

import hashlib
from dataclasses import dataclass
from typing import Literal

from salq.core.errors import TextError

Role = Literal["calibration", "evaluation"]
ROLES: tuple[Role, Role] = ("calibration", "evaluation")


@dataclass(frozen=True)
class Text:
    """`name` is short and stable ("wikitext2 (test)"), `title` for people, `origin` says where it is from and how it was made."""

    name: str
    title: str
    content: str
    sha256: str
    licence: str
    origin: str

    @classmethod
    def of(cls, name: str, title: str, content: str, *, licence: str, origin: str) -> "Text":
        """A text with the hash of its own UTF-8 bytes. Raises TextError when there is nothing in it."""
        if not content.strip():
            raise TextError(f"{title} is empty; give a text of at least a few thousand words.")
        return cls(name, title, content, sha256_of(content), licence, origin)


def sha256_of(content: str) -> str:
    """sha256 (hex) of the UTF-8 bytes."""
    return hashlib.sha256(content.encode()).hexdigest()
