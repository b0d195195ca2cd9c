"""A finished run as a folder of its own: as large as announced, the same model again, and nothing where something is wrong."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

import salq
from salq import recipes
from salq.core.errors import ConfigError, FormatError, ModelError
from salq.kernels.assemble import execution, load_quantized, quantized_copy, rtn_sources
from salq.models.llama import Llama, load_model
from salq.models.tiny import save_tiny
from salq.packing.files import PackedFile
from salq.quant.spec import QuantSpec
from salq.runs.execute import execute
from salq.runs.export import export_run
from salq.runs.requests import CalibrateRequest, Evaluation
from salq.runs.store import RunStore
from tests.helpers import random_tokens

BITS = 3


@pytest.fixture(scope="module")
def finished(tiny_folder: Path, tmp_path_factory: pytest.TempPathFactory) -> tuple[RunStore, str]:
    """A store with one finished run of RTN."""
    store = RunStore(tmp_path_factory.mktemp("runs"))
    recipe = recipes.get("rtn", bits=BITS, group_size=32)
    run_id = store.create(CalibrateRequest(model=str(tiny_folder), recipe=recipe, device="cpu", evaluation=Evaluation(windows=1, window=16)))
    list(execute(store, run_id))
    assert store.get(run_id).status == "done"
    return store, run_id


@pytest.fixture
def exported(finished: tuple[RunStore, str], tmp_path: Path) -> Path:
    folder = tmp_path / "packed"
    export_run(*finished, folder)
    return folder


def test_the_folder_takes_the_announced_size(finished: tuple[RunStore, str], exported: Path) -> None:
    store, run_id = finished
    tensors = load_file(exported / "model.safetensors")
    held = sum(tensor.numel() * tensor.element_size() for tensor in tensors.values())
    assert held == round(store.metrics(run_id)["model_size_mb"] * 1e6)
    blocks = [load_file(path) for path in sorted((store.folder(run_id) / "blocks").glob("*.safetensors"))]
    assert sum(tensor.numel() * tensor.element_size() for block in blocks for tensor in block.values()) == round(
        store.metrics(run_id)["size_mb"] * 1e6
    )
    about = json.loads((exported / "manifest.json").read_text())
    assert about["metrics"]["tag"] == f"w{BITS}g32"
    assert about["recipe"]["name"] == "rtn"
    assert about["source"]["fingerprint"] == PackedFile(exported / "model.safetensors").manifest.origin.fingerprint
    assert len(about["matrices"]) == 14


def test_it_is_the_same_model_without_its_source(finished: tuple[RunStore, str], exported: Path, tiny: Llama) -> None:
    store, run_id = finished
    blocks = store.blocks(run_id)
    want = quantized_copy(tiny, {index: blocks.load(index) for index in blocks.indices()})
    got = salq.load_packed(exported, device="cpu", executor="reference")
    tokens = random_tokens(tiny.config.vocab_size)
    with torch.no_grad():
        difference = got.model(tokens).logits - want.model(tokens).logits
    # embeddings and norms were rounded to float16: 11 significant bits
    assert float(difference.abs().max()) < 0.02
    assert got.is_chat == tiny.is_chat
    assert "quantized by salq" in got.reference_label
    assert execution(salq.load_packed(exported, device="cpu")).startswith("onnxruntime")
    with torch.no_grad():
        assert got.model.generate(tokens[:1], max_new_tokens=3, do_sample=False, pad_token_id=0).shape == (1, 27)


def test_others_are_told_that_it_is_quantized(exported: Path) -> None:
    with pytest.raises(ModelError, match=r"is quantized already \(salq\).*chat --packed"):
        load_model(str(exported), device="cpu")


def test_a_damaged_folder_is_refused_before_it_runs(exported: Path) -> None:
    path = exported / "model.safetensors"
    content = bytearray(path.read_bytes())
    content[-100] ^= 1
    path.write_bytes(content)
    with pytest.raises(FormatError, match="was altered"):
        salq.load_packed(exported, device="cpu")
    path.write_bytes(content[:-100])
    with pytest.raises(FormatError, match="not a whole packed file"):
        salq.load_packed(exported, device="cpu")


def test_what_cannot_be_exported_is_refused(finished: tuple[RunStore, str], tiny_folder: Path, tmp_path: Path) -> None:
    store, run_id = finished
    (tmp_path / "used").mkdir()
    (tmp_path / "used" / "file").touch()
    with pytest.raises(ConfigError, match="is not empty"):
        export_run(store, run_id, tmp_path / "used")
    unfinished = store.create(CalibrateRequest(model=str(tiny_folder), recipe=recipes.get("rtn", bits=4)))
    with pytest.raises(ConfigError, match="not a finished calibration"):
        export_run(store, unfinished, tmp_path / "new")
    assert sorted(path.name for path in tmp_path.iterdir() if not path.name.startswith("salq_home")) == ["used"]


def test_a_model_without_its_original_weights_is_the_same(tiny: Llama, tiny_folder: Path) -> None:
    spec = QuantSpec(bits=4, group_size=32)
    sources = rtn_sources(str(tiny_folder), spec, tiny.n_blocks)
    alone = load_quantized(str(tiny_folder), {1: sources[1]}, "cpu", "reference")
    tokens = random_tokens(tiny.config.vocab_size)
    with torch.no_grad():
        want = quantized_copy(tiny, {1: sources[1]()}).model(tokens).logits
        assert torch.equal(alone.model(tokens).logits, want)
    assert not any(parameter.is_meta for parameter in alone.model.parameters())
    assert alone.model.generation_config.eos_token_id == tiny.model.generation_config.eos_token_id


def test_an_untied_table_of_16_bits_stays_so(tmp_path: Path) -> None:
    folder = save_tiny(tmp_path / "untied", "llama-2-7b")
    tensors = {name: tensor.bfloat16() for name, tensor in load_file(folder / "model.safetensors").items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    alone, whole = load_quantized(str(folder), {}, "cpu"), load_model(str(folder), device="cpu")
    assert alone.model.model.embed_tokens.weight.dtype == torch.bfloat16
    assert alone.dtype == torch.float32
    tokens = random_tokens(whole.config.vocab_size)
    with torch.no_grad():
        assert torch.equal(alone.model(tokens).logits, whole.model(tokens).logits)
