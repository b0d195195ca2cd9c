"""README, promises, citation and licences: present, well formed, and in agreement with the tree."""

import hashlib
import json
import re
from datetime import date
from pathlib import Path

import pytest
import yaml

from tests.house.files import ROOT, name_of, project_files
from tests.house.readme_tree import END, START, readme_with_tree
from tests.house.test_pins import pinned_version, requirements

README = (ROOT / "README.md").read_text(encoding="utf-8")
STATES = ("open", "met")


def front_matter() -> dict[str, object]:
    """The YAML block at the top of the README, as HF Spaces reads it."""
    _, block, _ = README.split("---\n", 2)
    return yaml.safe_load(block)


def test_front_matter_fits_the_pins() -> None:
    settings = front_matter()
    assert settings["sdk"] == "gradio"
    assert settings["sdk_version"] == pinned_version("gradio")
    assert settings["python_version"] == "3.11"
    assert (ROOT / str(settings["app_file"])).exists()
    assert len(str(settings["short_description"])) <= 60
    assert settings["license"] == "apache-2.0"


def test_readme_lists_every_file() -> None:
    assert readme_with_tree(README) == README, "the README's tree is not that of the repository: run `make tree`"
    block = README.partition(START)[2].partition(END)[0]
    missing = [name_of(path) for path in project_files() if path.parts[: len(ROOT.parts) + 1] == (*ROOT.parts, "salq") and path.name not in block]
    assert not missing, missing


def test_readme_says_why_for_every_package() -> None:
    table = README.partition("## What is installed, and why")[2].partition("\n## ")[0]
    rows = dict(re.findall(r"^\| ([\w-]+)[^|]*\| ([^|]{5,}) \|$", table, flags=re.MULTILINE))
    listed = {name.replace("_", "-") for name in rows} - {"package"}
    assert listed == set(requirements("requirements.txt"))


@pytest.mark.parametrize("path", [path for path in project_files() if path.suffix == ".md"], ids=name_of)
def test_links_lead_somewhere(path: Path) -> None:
    targets = re.findall(r"\]\((?!https?://|#|mailto:)([^)#\s]+)", path.read_text(encoding="utf-8"))
    assert not [target for target in targets if not (path.parent / target).exists()]


def promise_rows() -> list[list[str]]:
    """Cells of every row of docs/promises.md below the header."""
    lines = [line for line in (ROOT / "docs/promises.md").read_text(encoding="utf-8").splitlines() if line.startswith("|")]
    assert lines[0] == "| id | promise | command | last figure | date | state |"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines[2:]]


def test_promises_parse() -> None:
    rows = promise_rows()
    assert len(rows) >= 31
    assert len({row[0] for row in rows}) == len(rows), "ids are not unique"
    for row in rows:
        assert len(row) == 6, row
        number, promise, command, figure, day, state = row
        assert re.fullmatch(r"\d+\.\d+", number), row
        assert promise, row
        assert command, row
        assert state in STATES, row
        if state == "met":
            assert figure not in {"", "-"}, f"{number}: met without a figure"
            assert date.fromisoformat(day), row


def test_licence() -> None:
    text = (ROOT / "LICENSE").read_text(encoding="utf-8")
    assert "Apache License" in text
    assert "END OF TERMS AND CONDITIONS" in text


def test_citation() -> None:
    citation = yaml.safe_load((ROOT / "CITATION.cff").read_text(encoding="utf-8"))
    pyproject = (ROOT / "pyproject.toml").read_text(encoding="utf-8")
    assert f'version = "{citation["version"]}"' in pyproject
    numbers = {reference["url"].rsplit("/", 1)[1] for reference in citation["references"]}
    assert {"2504.13932", "2402.05147"} <= numbers


def test_bundled_text_has_hash_and_licence() -> None:
    folder = ROOT / "assets/text"
    manifest = json.loads((folder / "manifest.json").read_text(encoding="utf-8"))
    said = json.dumps(manifest)
    for path in sorted(folder.glob("*.txt")):
        assert path.name in said or path.stem in manifest, f"{path.name} is not in the manifest"
        assert hashlib.sha256(path.read_bytes()).hexdigest() in said, f"{path.name} is not the file that the manifest describes"
    entries = manifest.values() if isinstance(manifest, dict) else manifest
    assert all(entry.get("licence") for entry in entries if isinstance(entry, dict))
