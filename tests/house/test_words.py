"""One word per concept (the glossary in CONTRIBUTING.md), a docstring in every module, and nothing about one machine in any file."""

import ast
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.files import ROOT, name_of, project_files, python_files, syntax

# Words of other code bases -> ours. Only names that salq itself defines are looked at; attributes of libraries keep their names.
AVOID = {
    "layer": "block (or linear)", "layers": "block (or linear)", "qlayer": "student", "qlayers": "student", "org_module": "linear",
    "n_bits": "bits", "nbits": "bits", "w_bit": "bits", "wbits": "bits", "w_bits": "bits",
    "groupsize": "group_size", "blocksize": "group_size", "block_size": "group_size",
    "W_q": "codes", "w_q": "codes", "intweight": "codes", "x_int": "codes", "packed_weight": "qweight",
    "scales": "scale", "zeros": "zero_point", "zero_points": "zero_point", "zeropoint": "zero_point",
    "real_quant": "quantize", "quant_temporary": "fake_quantize", "quant_inplace": "freeze", "fake_quant": "fake_quantize",
    "weight_quant_params": "spec", "quant_config": "spec", "upbound_factor": "upper_logit", "lowbound_factor": "lower_logit",
    "peft": "adapter (lora_A, lora_B)", "sensitivity": "saliency", "sensitivities": "saliency", "gradient_dict": "saliency", "importance": "saliency",
    "nsamples": "n_samples", "num_samples": "n_samples", "seqlen": "seq_len", "fp_layer": "teacher", "loss_func": "objective",
    "lambda_reg": "strength", "method_args": "recipe", "ppl": "perplexity", "bpw": "bits_per_weight", "kl_divergence": "kl", "divergence": "kl",
}  # fmt: skip

# HF's and GGUF's own names for what we read from or write to their files.
FOREIGN_NAMES = {"salq/models/"}

MACHINE = re.compile(
    r"(?<![\w.-])/(?:work|root|home|opt|mnt|Users)/[\w.-]|[A-Z]:\\|pypi\.org/simple|download\.pytorch\.org|files\.pythonhosted|index-url|PIP_INDEX_URL\s*="
)


def defined_names(tree: ast.Module) -> Iterator[tuple[str, int]]:
    """(name, line) of every function, class, argument, variable and attribute of self that the file defines."""
    for node in ast.walk(tree):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield node.name, node.lineno
        elif isinstance(node, ast.arg):
            yield node.arg, node.lineno
        elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
            yield node.id, node.lineno
        elif isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store):
            yield node.attr, node.lineno


def test_glossary() -> None:
    found = [
        f"{name_of(path)}:{line}: {name} -> {AVOID[name]}"
        for path in python_files("salq", "app.py")
        if not name_of(path).startswith(tuple(FOREIGN_NAMES))
        for name, line in defined_names(syntax(path))
        if name in AVOID
    ]
    assert not found, "words that the glossary avoids:\n" + "\n".join(found)


def test_contributing_explains_every_word() -> None:
    """CONTRIBUTING.md has the glossary that this test enforces."""
    text = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    ours = {word.strip("()") for said in AVOID.values() for word in re.findall(r"\w+", said)} - {"or"}
    assert not [word for word in sorted(ours) if not re.search(rf"\b{word}", text)]


def test_every_module_has_a_docstring() -> None:
    found = [name_of(path) for path in python_files() if path.read_text(encoding="utf-8").strip() and not ast.get_docstring(syntax(path))]
    assert not found, found


def text_of(path: Path) -> str | None:
    """The file's text; None for a binary one."""
    try:
        return path.read_text(encoding="utf-8")
    except UnicodeDecodeError:
        return None


def test_no_machine_path_and_no_index_host() -> None:
    found = []
    for path in project_files():
        if path == Path(__file__) or (text := text_of(path)) is None:
            continue
        found += [f"{name_of(path)}:{text.count(chr(10), 0, m.start()) + 1}: {m.group()}" for m in MACHINE.finditer(text)]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("text", "is_bad"),
    [("see /home/ann/x", True), ("--index-url X", True), ("/usr/bin/chromium", False), ("models/home/work", False), ("http://127.0.0.1:7860", False)],
)
def test_the_machine_rule_itself(text: str, is_bad: bool) -> None:
    assert bool(MACHINE.search(text)) is is_bad
