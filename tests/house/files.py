"""The files of the repository, as the house tests read them."""

import ast
import subprocess
from functools import cache
from pathlib import Path

ROOT = Path(__file__).parents[2]
SALQ = ROOT / "salq"
IGNORED = {".venv", ".git", "__pycache__", "test-results", ".hypothesis", ".mypy_cache", ".ruff_cache", ".pytest_cache", ".import_linter_cache"}


@cache
def project_files() -> tuple[Path, ...]:
    """Every file that belongs to the project: what git tracks or would add; without git, everything but caches."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard"]
    try:
        names = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout.splitlines()
    except (OSError, subprocess.CalledProcessError):
        names = [str(path.relative_to(ROOT)) for path in ROOT.rglob("*") if not IGNORED & set(path.relative_to(ROOT).parts)]
    return tuple(sorted({path for name in names if (path := ROOT / name).is_file()}))


def python_files(*tops: str) -> list[Path]:
    """The project's Python files under the given top folders or files (all of them when none is given)."""
    found = [path for path in project_files() if path.suffix == ".py"]
    return [path for path in found if not tops or path.relative_to(ROOT).parts[0] in tops]


@cache
def syntax(path: Path) -> ast.Module:
    """The parsed file."""
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def name_of(path: Path) -> str:
    """Path relative to the repository, for messages."""
    return path.relative_to(ROOT).as_posix()


def imports(tree: ast.AST) -> set[str]:
    """First parts of the absolute imports anywhere in `tree`."""
    found = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            found |= {alias.name.split(".")[0] for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found.add(node.module.split(".")[0])
    return found
