"""Models from a hub that answers: checked first, downloaded once; every refusal is one sentence. The hub client reads its address once,
so each test asks in a process of its own.
"""

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from salq.models.tiny import save_tiny
from tests.hub_server import hub

ASK = """
import sys
from salq.core.errors import SalqError
from salq.models.source import resolve
for name in sys.argv[1:]:
    try:
        source = resolve(name)
        print(source.origin, source.name, sorted(path.name for path in source.folder.iterdir()), repr(source.note))
    except SalqError as error:
        print(type(error).__name__, error)
"""
DEFAULT = "HuggingFaceTB/SmolLM2-135M-Instruct"


class Hub:
    """The served folder, its address, and a way to ask salq for models there."""

    def __init__(self, root: Path, address: str, asked: list[str], home: Path) -> None:
        self.root, self.address, self.asked, self.home = root, address, asked, home

    def resolve(self, *names: str, **environment: str) -> list[str]:
        values = {key: value for key, value in os.environ.items() if key not in {"HF_HUB_OFFLINE", "HF_TOKEN"}}
        values |= {"HF_ENDPOINT": self.address, "HF_HOME": str(self.home / "hf"), "SALQ_HOME": str(self.home / "salq"), "NO_PROXY": "127.0.0.1"}
        values |= {"PIP_NO_INDEX": "1", "PIP_FIND_LINKS": "", **environment}
        done = subprocess.run([sys.executable, "-c", ASK, *names], env=values, capture_output=True, text=True, timeout=60, check=False)
        assert done.returncode == 0, done.stderr
        assert "it/s" not in done.stderr
        return done.stdout.splitlines()


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Hub]:
    root = tmp_path_factory.mktemp("hub")
    tiny = save_tiny(root / DEFAULT)
    (tiny / "README.md").write_text("not wanted")
    shutil.copytree(tiny, root / "meta-llama" / "Llama-2-7b-hf")
    for name in ("mistral", "pickled", "empty"):
        shutil.copytree(tiny, root / "someone" / name)
    config = json.loads((tiny / "config.json").read_text())
    (root / "someone" / "mistral" / "config.json").write_text(json.dumps(config | {"model_type": "mistral"}))
    (root / "someone" / "pickled" / "model.safetensors").rename(root / "someone" / "pickled" / "pytorch_model.bin")
    (root / "someone" / "empty" / "model.safetensors").unlink()
    with hub(root, gated=frozenset({"meta-llama/Llama-2-7b-hf"})) as (address, asked):
        yield Hub(root, address, asked, tmp_path_factory.mktemp("home"))


def test_the_default_model_comes_in_full_precision_and_only_once(served: Hub) -> None:
    (answer,) = served.resolve("smollm2-135m")
    assert answer.startswith("hub smollm2-135m")
    assert answer.endswith("''")
    assert "model.safetensors" in answer
    assert "README.md" not in answer
    served.asked.clear()
    assert served.resolve("smollm2-135m", DEFAULT) == [answer, answer]
    assert served.asked == []


def test_refusals_say_what_to_do(served: Hub) -> None:
    gated, missing, mistral, pickled, empty = served.resolve("llama-2-7b", "someone/missing", "someone/mistral", "someone/pickled", "someone/empty")
    page = f"{served.address}/meta-llama/Llama-2-7b-hf"
    assert gated == (
        f"ModelError meta-llama/Llama-2-7b-hf is gated: accept its licence at {page}, then run `hf auth login` or set HF_TOKEN, and try again."
    )
    assert missing.startswith("ModelError The hub has no model someone/missing, or it is private")
    assert mistral.startswith("ModelError someone/mistral is not a LLaMA: its model_type is 'mistral'")
    assert pickled.startswith("ModelError someone/pickled has pickled weights only; salq reads safetensors only")
    assert empty.startswith("ModelError someone/empty has no weights in the usual place")
    assert not [path for path in served.asked if "someone" in path and "safetensors" in path]


def test_an_unreachable_hub_is_found_out_quickly_and_remembered(served: Hub, tmp_path: Path) -> None:
    environment = {"HF_ENDPOINT": "http://127.0.0.1:9", "SALQ_HOME": str(tmp_path / "home"), "HF_HOME": str(tmp_path / "hf")}
    answers = served.resolve("smollm2-360m", "someone/model", **environment)
    assert all("is not on this machine and the model hub cannot be reached" in answer for answer in answers)
    assert json.loads((tmp_path / "home" / "hub.json").read_text())["answers"] is False
