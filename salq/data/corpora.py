"""WikiText-2 and C4 from the hub, kept as plain text in salq's home so that one fetch serves every later run, also offline."""

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from salq.core.errors import TextError
from salq.core.files import atomic_path
from salq.core.network import hub_answers
from salq.core.settings import texts_dir
from salq.data.text import Role, Text

C4_DOCUMENTS = {"calibration": 2000, "evaluation": 1100}
"""First documents of the first shard: about a million tokens to calibrate on, and GPTQ's 1100 documents to evaluate on."""


@dataclass(frozen=True)
class Corpus:
    """A public data set: which split serves which role, and how to fetch it."""

    key: str
    title: str
    hub_id: str
    licence: str
    splits: dict[Role, str]
    fetch: Callable[[Role], str]

    def path(self, role: Role) -> Path:
        """Where the fetched text is kept."""
        return texts_dir() / f"{self.key}-{self.splits[role]}.txt"

    def is_local(self, role: Role) -> bool:
        """True when nothing needs to be fetched."""
        return self.path(role).is_file()

    def text(self, role: Role) -> Text:
        """The text of that role. Raises TextError when it is not here and the hub does not deliver it."""
        path, split = self.path(role), self.splits[role]
        content = path.read_text(encoding="utf-8") if path.is_file() else self._fetched(role)
        title = f"{self.title}, {split} split"
        return Text.of(f"{self.key} ({split})", title, content, licence=self.licence, origin=f"{self.hub_id} on the hub, {split} split")

    def _fetched(self, role: Role) -> str:
        way_out = "use the bundled text, or your own UTF-8 file"
        if not hub_answers():
            raise TextError(f"{self.title} is not on this machine and the hub cannot be reached; {way_out}.")
        try:
            content = self.fetch(role)
        except Exception as error:  # datasets lets the errors of half a dozen libraries through
            raise TextError(f"{self.title} could not be fetched from the hub ({type(error).__name__}); try again, or {way_out}.") from error
        with atomic_path(self.path(role)) as temporary:
            temporary.write_text(content, encoding="utf-8")
        return content


def _wikitext2(role: Role) -> str:
    """All lines of the split, joined by blank lines as in GPTQ's evaluation."""
    import datasets  # late: it takes seconds to import

    datasets.disable_progress_bars()
    rows = datasets.load_dataset("Salesforce/wikitext", "wikitext-2-raw-v1", split=_WIKITEXT2_SPLITS[role])
    return "\n\n".join(rows["text"])


def _c4(role: Role) -> str:
    """The first documents of the first shard, joined by blank lines."""
    import datasets  # late: it takes seconds to import

    shard = "en/c4-train.00000-of-01024.json.gz" if role == "calibration" else "en/c4-validation.00000-of-00008.json.gz"
    rows = datasets.load_dataset("allenai/c4", data_files={"part": shard}, split="part", streaming=True)
    return "\n\n".join(row["text"] for row in rows.take(C4_DOCUMENTS[role]))


_WIKITEXT2_SPLITS: dict[Role, str] = {"calibration": "train", "evaluation": "test"}
_C4_SPLITS: dict[Role, str] = {"calibration": "train", "evaluation": "validation"}

WIKITEXT2 = Corpus("wikitext2", "WikiText-2", "Salesforce/wikitext", "CC BY-SA 3.0", _WIKITEXT2_SPLITS, _wikitext2)
C4 = Corpus("c4", "C4 (English)", "allenai/c4", "ODC-BY 1.0", _C4_SPLITS, _c4)
CORPORA = {corpus.key: corpus for corpus in (WIKITEXT2, C4)}
