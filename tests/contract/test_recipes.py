"""Every recipe keeps the contract of the engine: event grammar, resume, determinism, what is stored is what runs."""

from pathlib import Path

import pytest
import torch

from salq import recipes
from salq.calibration.engine import calibrate
from salq.calibration.recipe import Recipe
from salq.calibration.store import DirectoryBlocks, MemoryBlocks
from salq.core import events as ev
from salq.core.errors import ConfigError, Diverged, ShapeError, StoreError
from salq.core.progress import fold, start_terms
from salq.kernels.assemble import quantized_copy
from salq.models.llama import Llama, load_model
from tests.helpers import assert_close, random_tokens


class RandomSaliency:
    """A saliency map with the right shapes; `spread`: standard deviation of its logarithm, for a heavy tail."""

    n_samples, seq_len = 4, 24

    def __init__(self, model: Llama, spread: float = 0.0) -> None:
        generator = torch.Generator().manual_seed(5)

        def draw(shape: torch.Size) -> torch.Tensor:
            if spread:
                return torch.exp(spread * torch.randn(shape, generator=generator)) * 1e-6
            return torch.rand(shape, generator=generator) * 1e-3

        self._blocks = [{name: draw(linear.weight.shape) for name, linear in model.linears(index).items()} for index in range(model.n_blocks)]

    def block(self, index: int) -> dict[str, torch.Tensor]:
        return self._blocks[index]


def small(name: str, **overrides: object) -> Recipe:
    data = {} if name == "rtn" else {"n_samples": 4, "seq_len": 24}
    changes = data if name in {"rtn", "gptq"} else {**data, "epochs": 2, "rank": 4, **overrides}
    return recipes.get(name, bits=recipes.describe(name).only_bits or 2, group_size=32, overrides=changes)


def run(model: Llama, recipe: Recipe, blocks: DirectoryBlocks | MemoryBlocks, **options: object) -> list[ev.Event]:
    tokens = random_tokens(model.config.vocab_size, 4, 24)
    return list(calibrate(model, tokens, recipe, blocks, RandomSaliency(model), **options))


@pytest.mark.parametrize("name", recipes.names())
def test_grammar_of_events(tiny: Llama, name: str) -> None:
    events = run(tiny, small(name), MemoryBlocks())
    kinds = [type(event) for event in events]
    assert kinds[0] is ev.PhaseStarted
    assert kinds[-1] is ev.PhaseDone
    assert kinds.count(ev.BlockStarted) == kinds.count(ev.BlockDone) == tiny.n_blocks
    block = None
    for event in events:
        if isinstance(event, ev.BlockStarted):
            block = event.block
        if isinstance(event, ev.StepDone | ev.BlockDone):
            assert event.block == block
    for event in events:
        assert ev.from_json(event.to_json()) == event


@pytest.mark.parametrize("name", recipes.names())
def test_the_same_request_gives_the_same_codes(tiny: Llama, name: str) -> None:
    one, two = MemoryBlocks(), MemoryBlocks()
    run(tiny, small(name), one, seed=3)
    run(tiny, small(name), two, seed=3)
    for index in range(tiny.n_blocks):
        for module_name, linear in one.load(index).items():
            assert torch.equal(linear.codes, two.load(index)[module_name].codes)
            assert torch.equal(linear.scale, two.load(index)[module_name].scale)


@pytest.mark.parametrize("name", recipes.names())
def test_resume_after_a_cancel_gives_the_codes_of_an_uninterrupted_run(tiny: Llama, tmp_path: Path, name: str) -> None:
    whole, cut = DirectoryBlocks(tmp_path / "whole"), DirectoryBlocks(tmp_path / "cut")
    run(tiny, small(name), whole)
    tokens = random_tokens(tiny.config.vocab_size, 4, 24)
    for event in calibrate(tiny, tokens, small(name), cut, RandomSaliency(tiny)):
        if isinstance(event, ev.BlockDone):
            break
    assert cut.indices() == [0]
    events = run(tiny, small(name), cut)
    assert [event.stored for event in events if isinstance(event, ev.BlockStarted)] == [True, False]
    for index in range(tiny.n_blocks):
        assert cut.path(index).read_bytes() == whole.path(index).read_bytes()


@pytest.mark.parametrize("name", recipes.names())
def test_the_runnable_model_computes_what_calibration_reported(tiny_folder: Path, name: str) -> None:
    tiny = load_model(str(tiny_folder), device="cpu")  # its own: output_hidden_states leaves hooks of transformers behind
    blocks = MemoryBlocks()
    progress = fold(run(tiny, small(name), blocks))
    quantized = quantized_copy(tiny, {index: blocks.load(index) for index in range(tiny.n_blocks)})
    tokens = random_tokens(tiny.config.vocab_size, 4, 24)
    with torch.no_grad():
        want = tiny.model.model(tokens, output_hidden_states=True).hidden_states
        got = quantized.model.model(tokens, output_hidden_states=True).hidden_states
    error = ((got[1] - want[1]).norm(dim=-1) / want[1].norm(dim=-1)).mean()
    assert progress.output_errors[0] == pytest.approx(float(error), rel=1e-3)
    assert torch.isfinite(got[-1]).all()


@pytest.mark.parametrize("name", ["apiq", "sapr", "apiq-lw"])
def test_calibration_lowers_the_output_error_of_rounding(tiny: Llama, name: str) -> None:
    rounded = fold(run(tiny, small("rtn"), MemoryBlocks()))
    learned = fold(run(tiny, small(name, epochs=40), MemoryBlocks()))
    for block, error in rounded.output_errors.items():
        assert learned.output_errors[block] is not None
        assert error is not None
        assert learned.output_errors[block] < 0.95 * error


@pytest.mark.parametrize(
    ("name", "terms"),
    [
        ("sapr", {"output", "weight_saliency"}),
        ("sapr-sw", {"output", "sliced_wasserstein", "weight_saliency"}),
        ("db-llm", {"output"}),
        ("binary-mos", {"output"}),
    ],
)
def test_loss_terms_come_by_name(tiny: Llama, name: str, terms: set[str]) -> None:
    events = run(tiny, small(name), MemoryBlocks())
    assert {term for event in events if isinstance(event, ev.StepDone) for term in event.loss} == terms
    for event in events:
        if isinstance(event, ev.BlockDone):
            assert {term.name for term in start_terms(event.details)} == terms
            for term in start_terms(event.details):
                assert term.value > 0
                assert term.gradients["clipping"] > 0
                assert (term.gradients["adapter"] > 0) == (term.name != "weight_saliency")  # before_lora: adapters do not feel R


def test_stages_come_in_their_order(tiny: Llama) -> None:
    events = run(tiny, small("sapr-staged"), MemoryBlocks())
    stages = [event.stage for event in events if isinstance(event, ev.StepDone) and event.block == 0]
    assert list(dict.fromkeys(stages)) == ["weight", "mixed", "output"]
    without = [event.stage for event in run(tiny, small("sapr-staged", **{"stages.0.epochs": 0}), MemoryBlocks()) if isinstance(event, ev.StepDone)]
    assert list(dict.fromkeys(without)) == ["mixed", "output"]


@pytest.mark.parametrize("start", ["residual", "saliency", "output"])
def test_adapters_that_start_at_what_rounding_loses_start_nearer_to_the_output(tiny: Llama, start: str) -> None:
    def first_loss(**overrides: object) -> float:
        events = run(tiny, small("sapr", **{"stages.*.regularizer.strength": 0.0, **overrides}), MemoryBlocks(), n_blocks=1)
        return next(event.details["loss.output"] for event in events if isinstance(event, ev.BlockDone))

    assert first_loss(**{"adapter.start": start}) < 0.97 * first_loss()


def test_channels_weighted_by_saliency_are_another_loss_and_need_a_map(tiny: Llama) -> None:
    recipe = small("sapr", **{"stages.*.regularizer.strength": 0.0, "stages.*.objective.channels": "saliency"})
    assert recipe.needs_saliency
    plain, weighted = MemoryBlocks(), MemoryBlocks()
    run(tiny, small("apiq"), plain, n_blocks=1)
    run(tiny, recipe, weighted, n_blocks=1)
    name = "mlp.down_proj"
    assert not torch.equal(plain.load(0)[name].scale, weighted.load(0)[name].scale)
    with pytest.raises(ConfigError, match="fitted as a whole"):
        small("sapr", **{"granularity": "linear", "stages.*.objective.channels": "saliency"})


def test_linear_by_linear_progress_goes_one_way(tiny: Llama) -> None:
    steps = [event for event in run(tiny, small("apiq-lw"), MemoryBlocks()) if isinstance(event, ev.StepDone) and event.block == 0]
    assert [event.step for event in steps] == list(range(1, len(steps) + 1))
    assert {event.of for event in steps} == {len(steps)}


def test_mixed_bits_are_calibrated_stored_and_run(tiny: Llama, tmp_path: Path) -> None:
    recipe = small("apiq", mixed="0.mlp.down_proj:w8g32 *.down_proj:w4g64")
    blocks = DirectoryBlocks(tmp_path)
    run(tiny, recipe, blocks)
    stored = {f"{index}.{name}": linear for index in range(tiny.n_blocks) for name, linear in blocks.load(index).items()}
    assert {name: linear.spec for name, linear in stored.items()} == recipe.specs(stored)
    assert {linear.spec.tag for linear in stored.values()} == {"w2g32", "w8g32", "w4g64"}
    assert int(stored["0.mlp.down_proj"].codes.max()) > 15
    quantized = quantized_copy(tiny, {index: blocks.load(index) for index in range(tiny.n_blocks)})
    assert torch.isfinite(quantized.model(random_tokens(tiny.config.vocab_size)).logits).all()
    with pytest.raises(ConfigError, match=r"'5\.\*'"):
        run(tiny, small("apiq", mixed="5.*:w8g32"), MemoryBlocks())


def test_the_saliency_term_acts(tiny: Llama) -> None:
    """At relative strength 1, sum G (Q - W)^2 is at least 10 % below ApiQ's with the same seed, steps and rates, and the codes differ.

    Saliency has a heavy tail, as real maps have, and the rates let 60 steps of the tiny model go as far as the default model's 48 of quick.
    """
    saliency = RandomSaliency(tiny, spread=2.0)
    tokens, course = random_tokens(tiny.config.vocab_size, 4, 24), {"epochs": 60, "lr_clipping": 0.1}
    plain, salient = MemoryBlocks(), MemoryBlocks()
    list(calibrate(tiny, tokens, small("apiq", **course), plain))
    list(calibrate(tiny, tokens, small("sapr", strength=1.0, **course), salient, saliency))

    def weighted(blocks: MemoryBlocks) -> float:
        return sum(
            float((saliency.block(index)[name] * (linear.dequantize() - tiny.linears(index)[name].weight) ** 2).sum())
            for index in range(tiny.n_blocks)
            for name, linear in blocks.load(index).items()
        )

    assert weighted(salient) < 0.9 * weighted(plain)
    assert any(not torch.equal(plain.load(0)[name].codes, linear.codes) for name, linear in salient.load(0).items())


def test_only_the_first_blocks(tiny: Llama) -> None:
    blocks = MemoryBlocks()
    run(tiny, small("rtn"), blocks, n_blocks=1)
    assert blocks.has(0)
    assert not blocks.has(1)


def test_rounding_needs_no_text(tiny: Llama) -> None:
    events = list(calibrate(tiny, None, small("rtn"), MemoryBlocks()))
    assert [event.output_error for event in events if isinstance(event, ev.BlockDone)] == [None, None]


def test_an_absurd_learning_rate_ends_with_where_it_diverged(tiny: Llama) -> None:
    with pytest.raises(Diverged, match=r"diverged in block 0, stage 'output', step \d+"):
        # an alpha with which a few steps overflow float32 on any processor
        run(tiny, small("apiq", alpha=4096.0, lr_adapter=10.0, lr_clipping=10.0, epochs=200, normalize="raw", schedule="constant"), MemoryBlocks())


def test_what_does_not_fit_is_refused_before_any_work(tiny: Llama) -> None:
    with pytest.raises(ShapeError, match="not a multiple of group size 100"):
        run(tiny, recipes.get("rtn", group_size=100), MemoryBlocks())
    with pytest.raises(ShapeError, match="rank"):
        run(tiny, small("apiq", rank=1000), MemoryBlocks())
    with pytest.raises(ConfigError, match="calibration tokens"):
        list(calibrate(tiny, None, small("apiq"), MemoryBlocks()))
    with pytest.raises(ConfigError, match="saliency map"):
        list(calibrate(tiny, random_tokens(tiny.config.vocab_size), small("sapr"), MemoryBlocks()))


def test_a_damaged_block_file_says_which_and_what_to_do(tiny: Llama, tmp_path: Path) -> None:
    blocks = DirectoryBlocks(tmp_path)
    run(tiny, small("rtn"), blocks)
    blocks.path(1).write_bytes(blocks.path(1).read_bytes()[:100])
    with pytest.raises(StoreError, match=r"block 1 .*001\.safetensors"):
        blocks.load(1)


def test_the_original_is_never_changed(tiny: Llama) -> None:
    before = {name: value.clone() for name, value in tiny.model.state_dict().items()}
    blocks = MemoryBlocks()
    run(tiny, small("sapr"), blocks)
    quantized_copy(tiny, {0: blocks.load(0)})
    for name, value in tiny.model.state_dict().items():
        assert_close(name, value, before[name], rtol=0, atol=0)
