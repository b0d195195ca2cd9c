"""Writes the README's file tree: one line per file, the first sentence of the module. Run by `make tree`; a test compares."""

import ast
import re
from pathlib import Path

from tests.house.files import ROOT, project_files, syntax

START, END = "<!-- tree: written by `make tree` from the first sentence of each module -->", "<!-- /tree -->"
ROOMS = (
    *("core", "models", "data", "quant", "packing", "kernels", "saliency", "evaluation"),
    *("calibration", "recipes", "chat", "runs", "lessons", "figures", "ui", "cli"),
)
WIDTH = 165

# What has no docstring, and folders whose files go without a line of their own.
SAID = {
    "Makefile": "make setup | run | check | test | assets",
    "requirements.txt": "what salq needs, as ranges; constraints.txt has the tested versions, requirements-dev.txt the test tools",
    "pyproject.toml": "settings of ruff, mypy, pytest and the import rules",
    "assets/text": "calibration and evaluation text that is always there, with hashes and licences",
    "assets/ui": "styles and scripts of the page",
    "assets/results": "what the first screen shows: results of real runs, made by `make assets`",
    "benchmarks/results": "what the benchmarks wrote, with command, machine and versions",
    "docs/promises.md": "every promise, how to check it, and what the last check gave",
    "salq": "the package",
    "salq/__init__.py": "the public names, each imported when it is first used",
    "tests": "unit, property, contract, parity, e2e, browser, and house (tests of the repository itself)",
}


def first_sentence(path: Path) -> str:
    """First sentence of a module's docstring, on one line, without its full stop."""
    text = " ".join((ast.get_docstring(syntax(path)) or "").split("\n\n")[0].split())
    return re.split(r"(?<=[.!?])\s+(?=[A-Z`])", text, maxsplit=1)[0].rstrip(".")


def description(name: str) -> str:
    """The line for one file or folder of the repository."""
    path = ROOT / name
    if name in SAID:
        return SAID[name]
    module = path / "__init__.py" if path.is_dir() else path
    return first_sentence(module) if module.suffix == ".py" and module.exists() else ""


def entries() -> list[tuple[int, str, str]]:
    """(depth, name, description) of every line of the tree, in order."""
    files = [path.relative_to(ROOT) for path in project_files()]
    names = [("app.py", 0)]
    names += [(name, 0) for name in ("Makefile", "requirements.txt", "pyproject.toml")]
    names += [(name, 0) for name in ("assets/text", "assets/ui", "assets/results")]
    names += [(path.as_posix(), 0) for path in files if path.parts[0] == "benchmarks" and path.suffix == ".py" and path.name != "__init__.py"]
    names += [(name, 0) for name in ("benchmarks/results", "docs/promises.md", "tests", "salq")]
    names += [(path.as_posix(), 1) for path in files if path.parts[0] == "salq" and len(path.parts) == 2]
    for room in ROOMS:
        inside = [path for path in files if path.parts[:2] == ("salq", room)]
        if inside:
            names.append((f"salq/{room}", 1))
            names += [(path.as_posix(), 2) for path in inside if path.name != "__init__.py" or len(path.parts) > 3]
    tracked = {folder.as_posix() for path in files for folder in (path, *path.parents)}  # an empty folder is not in a clone
    return [(depth, name, description(name)) for name, depth in names if name in tracked]


def line(depth: int, name: str, said: str) -> str:
    """One line of the tree, cut at WIDTH."""
    shown = name if depth == 0 else Path(name).name if depth == 1 else "/".join(Path(name).parts[2:])
    label = "  " * depth + shown + ("/" if (ROOT / name).is_dir() else "")
    text = f"{label:<26} {said}".rstrip()
    return text if len(text) <= WIDTH else text[: WIDTH - 1].rsplit(" ", 1)[0] + "…"


def tree() -> str:
    """The whole block between START and END."""
    return "\n".join([START, "```text", *(line(*entry) for entry in entries()), "```", END])


def readme_with_tree(readme: str) -> str:
    """`readme` with its tree renewed."""
    before, found_start, rest = readme.partition(START)
    _, found_end, after = rest.partition(END)
    if not (found_start and found_end):
        raise SystemExit(f"README.md has no place for the tree: {START} ... {END}")
    return before + tree() + after


if __name__ == "__main__":
    target = ROOT / "README.md"
    target.write_text(readme_with_tree(target.read_text(encoding="utf-8")), encoding="utf-8")
    print(f"README.md: {len(entries())} lines of tree")
