"""Names become checked folders; everything that can be wrong with one is said in a sentence that says what to do."""

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from salq.core.errors import ModelError, SalqError, UnknownNameError
from salq.core.settings import models_dir
from salq.models.folder import ORIGIN_FILE, fingerprint, weight_files
from salq.models.llama import load_model, read_weight
from salq.models.source import is_local, resolve
from salq.models.tiny import save_tiny


@pytest.fixture
def folder(tiny_folder: Path, tmp_path: Path) -> Path:
    """A copy of the tiny model that a test may break."""
    return Path(shutil.copytree(tiny_folder, tmp_path / "copy"))


def edit_config(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def test_a_folder_is_full_precision_from_a_folder(folder: Path) -> None:
    source = resolve(str(folder))
    assert (source.origin, source.note, source.folder) == ("folder", "", folder.resolve())
    assert len(source.fingerprint) == 64


def test_a_folder_in_salqs_home_answers_to_its_catalogue_key() -> None:
    assert not is_local("llama-2-7b")
    save_tiny(models_dir() / "llama-2-7b", "llama-2-7b")
    assert is_local("llama-2-7b")
    assert resolve("llama-2-7b").origin == "folder"
    assert resolve("meta-llama/Llama-2-7b-hf").name == "llama-2-7b"


def test_fingerprint_follows_content_not_place(folder: Path, tiny_folder: Path) -> None:
    assert fingerprint(folder) == fingerprint(tiny_folder)
    edit_config(folder, transformers_version="0.0", use_cache=False)
    assert fingerprint(folder) == fingerprint(tiny_folder)
    edit_config(folder, rms_norm_eps=1e-6)
    assert fingerprint(folder) != fingerprint(tiny_folder)


def test_fingerprint_sees_other_weights(tmp_path: Path) -> None:
    assert fingerprint(save_tiny(tmp_path / "a", seed=0)) != fingerprint(save_tiny(tmp_path / "b", seed=1))


def test_a_conversion_keeps_its_note(folder: Path) -> None:
    (folder / ORIGIN_FILE).write_text('{"origin": "package", "note": "reconstructed from a 4-bit file (Q4_1, about 5 bits per weight)"}')
    model = load_model(str(folder), device="cpu")
    assert model.source.note.startswith("reconstructed from a 4-bit file")
    assert model.reference_label == "reference reconstructed from a 4-bit file"


def test_several_files_are_read_through_their_index(tiny_folder: Path, folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    (folder / "model.safetensors").unlink()
    names = sorted(weights)
    parts = {"model-00001-of-00002.safetensors": names[:7], "model-00002-of-00002.safetensors": names[7:]}
    for file, part in parts.items():
        save_file({name: weights[name] for name in part}, folder / file, metadata={"format": "pt"})
    index = {"metadata": {}, "weight_map": {name: file for file, part in parts.items() for name in part}}
    (folder / "model.safetensors.index.json").write_text(json.dumps(index))
    assert [path.name for path in weight_files(folder)] == sorted(parts)
    whole, split = resolve(str(tiny_folder)), resolve(str(folder))
    assert torch.equal(read_weight(whole, 1, "mlp.down_proj"), read_weight(split, 1, "mlp.down_proj"))
    assert load_model(str(folder), device="cpu").parameters == load_model(str(tiny_folder), device="cpu").parameters
    (folder / "model-00002-of-00002.safetensors").unlink()
    with pytest.raises(ModelError, match=r"lacks model-00002-of-00002\.safetensors"):
        resolve(str(folder))


@pytest.mark.parametrize("name", ["smollm", "gpt2", "", "no such model", "a/b/c", "~nobody", "x" * 5000, "nul\0byte"])
def test_unknown_names_say_what_there_is(name: str) -> None:
    with pytest.raises(SalqError, match=r"choose one of: smollm2-135m|is not a folder"):
        resolve(name)


def test_unknown_name_is_an_unknown_name() -> None:
    with pytest.raises(UnknownNameError, match=r"A hub id \(owner/name\) or a local folder works too"):
        resolve("smollm")


def test_a_hub_id_without_a_hub_says_so() -> None:
    with pytest.raises(ModelError, match="nobody/nothing is not on this machine and the model hub cannot be reached"):
        resolve("nobody/nothing")


def test_a_missing_folder_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match="is not a folder"):
        resolve(str(tmp_path / "missing"))


def test_a_folder_without_config_says_so(tmp_path: Path) -> None:
    with pytest.raises(ModelError, match=r"holds no config\.json"):
        resolve(str(tmp_path))


def test_a_damaged_config_says_so(folder: Path) -> None:
    (folder / "config.json").write_text('{"model_type": "lla')
    with pytest.raises(ModelError, match="cannot be read as JSON"):
        resolve(str(folder))


def test_another_architecture_is_named(folder: Path) -> None:
    edit_config(folder, model_type="mistral")
    with pytest.raises(ModelError, match="is not a LLaMA: its model_type is 'mistral'"):
        resolve(str(folder))


def test_a_quantized_model_is_refused(folder: Path) -> None:
    edit_config(folder, quantization_config={"quant_method": "gptq", "bits": 4})
    with pytest.raises(ModelError, match=r"quantized already \(gptq\)"):
        resolve(str(folder))


def test_pickled_weights_are_refused(folder: Path) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="salq reads safetensors only"):
        resolve(str(folder))


@pytest.mark.parametrize("keep", [0, 5, 500, -1000])
def test_cut_weights_are_found_before_loading(folder: Path, keep: int) -> None:
    path = folder / "model.safetensors"
    path.write_bytes(path.read_bytes()[:keep])
    with pytest.raises(ModelError, match="damaged or cut short"):
        resolve(str(folder))


def test_a_missing_tensor_is_not_replaced_by_random_numbers(folder: Path) -> None:
    weights = load_file(folder / "model.safetensors")
    del weights["model.layers.1.mlp.up_proj.weight"]
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match=r"lacks 1 weights \(first: model\.layers\.1\.mlp\.up_proj\.weight\)"):
        load_model(str(folder), device="cpu")


def test_weights_of_another_shape_are_refused(folder: Path) -> None:
    edit_config(folder, intermediate_size=512)
    with pytest.raises(ModelError, match="do not fit its config or are damaged"):
        load_model(str(folder), device="cpu")


def test_a_nonsense_config_is_refused(folder: Path) -> None:
    edit_config(folder, num_attention_heads=7)
    with pytest.raises(ModelError, match="not a usable LLaMA config"):
        load_model(str(folder), device="cpu")


@pytest.mark.parametrize("content", [None, "{", "{}"])
def test_a_broken_tokenizer_is_refused(folder: Path, content: str | None) -> None:
    (folder / "tokenizer.json").unlink() if content is None else (folder / "tokenizer.json").write_text(content)
    with pytest.raises(ModelError, match=r"tokenizer of .* cannot be read"):
        load_model(str(folder), device="cpu")


def test_a_public_host_opens_no_folder(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("SPACE_ID", "someone/salq")
    for name in (str(folder), "./nothing", "/etc/passwd"):
        with pytest.raises(ModelError, match="cannot be opened on a public host"):
            resolve(name)
    for name in (str(folder), "owner/model", "nobody"):
        with pytest.raises(SalqError, match="choose one of: ") as caught:
            resolve(name)
        assert "hub id" not in str(caught.value)
