"""Loading: dtype, device, memory; blocks and linears as data; inputs of block 0."""

from pathlib import Path

import pytest
import torch

from salq.core.device import choose_device
from salq.core.errors import ConfigError, ModelError, ResourceError
from salq.models.capture import capture_block_inputs, run_block
from salq.models.llama import LINEARS, Llama, load_model, read_config, read_weight
from salq.models.tiny import tiny_llama
from tests.helpers import assert_close


def test_a_loaded_model_is_ready_for_inference(tiny: Llama) -> None:
    assert (tiny.n_blocks, len(tiny.blocks)) == (2, 2)
    assert (tiny.device.type, tiny.dtype) == ("cpu", torch.float32)
    assert tiny.is_chat
    assert tiny.reference_label == "full precision"
    assert not tiny.model.training
    assert not any(parameter.requires_grad for parameter in tiny.model.parameters())
    assert read_config(tiny.source).hidden_size == tiny.config.hidden_size


def test_dtype_and_device_may_be_given(tiny_folder: Path) -> None:
    model = load_model(str(tiny_folder), device=choose_device("cpu"), dtype=torch.bfloat16)
    assert model.dtype == torch.bfloat16
    for device in ("tpu", "cuda:²", "cuda:-1"):
        with pytest.raises(ConfigError, match="use auto, cpu or cuda:N"):
            load_model(str(tiny_folder), device=device)


def test_too_large_a_model_is_refused_before_anything_is_fetched() -> None:
    with pytest.raises(ResourceError, match=r"llama-2-13b needs 10412.7 GB for its weights in complex\d+|choose a smaller model"):
        load_model("llama-2-13b", device="cpu", dtype=torch.complex128)


def test_no_progress_bar_reaches_the_terminal(tiny_folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
    load_model(str(tiny_folder), device="cpu")
    assert capfd.readouterr() == ("", "")


def test_a_missing_matrix_says_so(tiny: Llama) -> None:
    with pytest.raises(ModelError, match=r"model\.layers\.9\.mlp\.up_proj\.weight"):
        read_weight(tiny.source, 9, "mlp.up_proj")


def test_tiny_models_repeat_and_differ_by_seed(tiny: Llama) -> None:
    same, other = tiny_llama(tiny.config, seed=0), tiny_llama(tiny.config, seed=1)
    name = f"model.layers.0.{LINEARS[0]}.weight"
    assert torch.equal(same.get_parameter(name), tiny.model.get_parameter(name))
    assert not torch.equal(other.get_parameter(name), tiny.model.get_parameter(name))


def test_tiny_predictions_are_far_from_uniform(tiny: Llama, tokens: torch.Tensor) -> None:
    logits = tiny.model(tokens).logits
    assert 0.5 < float(logits.std()) < 3


def test_the_tiny_tokenizer_keeps_every_byte(tiny: Llama) -> None:
    text = "Ünï\tcode 日本\n  and spaces "
    ids = tiny.tokenizer(text, add_special_tokens=False).input_ids
    assert len(ids) == len(text.encode())
    assert tiny.tokenizer.decode(ids) == text
    assert "<|im_start|>user\nhi<|im_end|>" in tiny.tokenizer.apply_chat_template([{"role": "user", "content": "hi"}], tokenize=False)


def test_captured_keywords_fit_any_batch_size(tiny: Llama, tokens: torch.Tensor) -> None:
    inputs = capture_block_inputs(tiny, tokens, batch_size=3)
    assert_close("embeddings", inputs.hidden, tiny.model.model.embed_tokens(tokens), rtol=0, atol=0)
    whole = run_block(tiny.blocks[0], inputs.hidden, inputs.kwargs)
    single = torch.cat([run_block(tiny.blocks[0], row[None], inputs.kwargs) for row in inputs.hidden])
    assert_close("block 0", single, whole, rtol=1e-4, atol=1e-5)


def test_capture_leaves_no_hook_and_blocks_carry_gradients(tiny: Llama, tokens: torch.Tensor) -> None:
    inputs = capture_block_inputs(tiny, tokens)
    assert not tiny.blocks[0]._forward_pre_hooks
    hidden = inputs.hidden.clone().requires_grad_()
    run_block(tiny.blocks[0], hidden, inputs.kwargs).square().mean().backward()
    assert hidden.grad is not None
    assert float(hidden.grad.abs().sum()) > 0
