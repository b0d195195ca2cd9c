"""The catalogue's configs give the published parameter counts, and looking at it costs no torch."""

import subprocess
import sys
from pathlib import Path

import pytest

from salq.core.errors import UnknownNameError
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL, CatalogueEntry, entry_of, parameters_of


@pytest.mark.parametrize("entry", CATALOGUE.values(), ids=CATALOGUE)
def test_config_gives_the_published_parameter_count(entry: CatalogueEntry) -> None:
    assert parameters_of(entry.config) == entry.parameters


def test_memory_follows_the_bytes_per_weight() -> None:
    entry = entry_of(DEFAULT_MODEL)
    assert entry.memory_gb() == pytest.approx(0.538, abs=0.001)
    assert entry.memory_gb(2) == pytest.approx(entry.memory_gb() / 2)


def test_gated_models_are_metas() -> None:
    assert {entry.key for entry in CATALOGUE.values() if entry.gated} == {key for key in CATALOGUE if key.startswith("llama-")}


def test_unknown_key_lists_the_known_ones() -> None:
    with pytest.raises(UnknownNameError, match=r"'gpt2' is not known; choose one of: smollm2-135m, .*llama-3\.1-8b"):
        entry_of("gpt2")


def test_finding_a_model_imports_no_torch(tiny_folder: Path) -> None:
    code = "import sys; from salq.models.source import is_local, resolve; resolve(sys.argv[1]); is_local('llama-2-7b')"
    code += "; sys.exit('torch' in sys.modules or 'transformers' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tiny_folder)], check=False).returncode == 0
