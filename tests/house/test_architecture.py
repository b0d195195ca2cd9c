"""The arrows of ARCHITECTURE.md hold, generators never yield inside a `with`, and everything imports without a GPU and without triton."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.files import ROOT, name_of, python_files, syntax

Function = ast.FunctionDef | ast.AsyncFunctionDef

IMPORT_ALL = """
import importlib, sys
from importlib.abc import MetaPathFinder

class NoTriton(MetaPathFinder):
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] == "triton":
            raise ModuleNotFoundError("no triton here", name="triton")

sys.meta_path.insert(0, NoTriton())
for name in sys.argv[1:]:
    importlib.import_module(name)
"""


def test_dependencies_point_down() -> None:
    command = [str(Path(sys.executable).parent / "lint-imports"), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr


def own_nodes(node: ast.AST) -> Iterator[ast.AST]:
    """`node`'s descendants without those of functions and classes defined inside it."""
    for child in ast.iter_child_nodes(node):
        yield child
        if not isinstance(child, Function | ast.Lambda | ast.ClassDef | ast.GeneratorExp):
            yield from own_nodes(child)


def is_context_manager(function: Function) -> bool:
    """Decorated with contextmanager: there a yield inside a `with` is the point."""
    return any("contextmanager" in ast.unparse(decorator) for decorator in function.decorator_list)


def yields_inside_with(tree: ast.Module) -> list[int]:
    """Lines of yields inside a `with` of an ordinary generator."""
    functions = [node for node in ast.walk(tree) if isinstance(node, Function) and not is_context_manager(node)]
    withs = [node for function in functions for node in own_nodes(function) if isinstance(node, ast.With | ast.AsyncWith)]
    return sorted({inner.lineno for node in withs for inner in own_nodes(node) if isinstance(inner, ast.Yield | ast.YieldFrom)})


def test_no_yield_inside_with() -> None:
    """A mode such as torch.no_grad would stay switched in the consumer (pytorch/pytorch, pull request 49017)."""
    found = [f"{name_of(path)}:{line}" for path in python_files("salq", "app.py") for line in yields_inside_with(syntax(path))]
    assert not found, f"yield inside a with: {found}"


@pytest.mark.parametrize(
    ("code", "lines"),
    [
        ("def f():\n with m:\n  yield 1", [3]),
        ("def f():\n with m:\n  for x in y:\n   yield from x", [4]),
        ("@contextmanager\ndef f():\n with m:\n  yield 1", []),
        ("def f():\n with m:\n  g = (x for x in y)\n yield 1", []),
        ("def f():\n with m:\n  def g():\n   yield 1\n", []),
    ],
)
def test_the_yield_rule_itself(code: str, lines: list[int]) -> None:
    assert yields_inside_with(ast.parse(code)) == lines


def is_triton_module(path: Path) -> bool:
    """Kernels in Triton live in files or folders of salq/kernels that say so; only they may import triton."""
    parts = path.relative_to(ROOT).parts
    return parts[:2] == ("salq", "kernels") and any("triton" in part for part in parts[2:])


def test_nothing_imports_triton_at_the_top() -> None:
    """@triton.autotune touches the driver when it is imported, so the choice of an executor imports Triton modules when it picks them."""
    found = []
    for path in python_files("salq"):
        for node in syntax(path).body:
            text = ast.unparse(node) if isinstance(node, ast.Import | ast.ImportFrom) else ""
            if "triton" in text and not is_triton_module(path):
                found.append(f"{name_of(path)}:{node.lineno}: {text}")
    assert not found, found


@pytest.mark.slow
def test_everything_imports_without_gpu_and_triton() -> None:
    paths = [path for path in python_files("salq") if not is_triton_module(path) and path.name != "__main__.py"]
    modules = [".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__") for path in paths]
    command = [sys.executable, "-c", IMPORT_ALL, *modules]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stderr
