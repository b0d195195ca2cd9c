"""Where activations live changes nothing that is computed, costs the memory that it says, and leaves no file behind."""

import os
import resource
from pathlib import Path

import pytest
import torch
from transformers import LlamaConfig

from salq import recipes
from salq.calibration import places
from salq.calibration.engine import calibrate
from salq.calibration.estimate import estimate
from salq.calibration.places import Activations, StreamMemory, batches, placement
from salq.calibration.store import DirectoryBlocks
from salq.calibration.streams import Streams, streams_gb
from salq.core import events as ev
from salq.core.device import PeakMemory
from salq.core.errors import ConfigError, ResourceError, SalqError
from salq.models.catalogue import CATALOGUE
from salq.models.llama import Llama
from tests.contract.test_recipes import RandomSaliency, small
from tests.helpers import random_tokens

CPU = torch.device("cpu")
NOTHING = 1e-9
"""A budget in GB that no activation fits."""


def calibrated(tiny: Llama, name: str, blocks: DirectoryBlocks, budget: float | None) -> list[ev.Event]:
    tokens = random_tokens(tiny.config.vocab_size, 4, 24)
    return list(calibrate(tiny, tokens, small(name, **{"data.streams_gb": budget}), blocks, RandomSaliency(tiny)))


@pytest.mark.parametrize("name", ["sapr", "apiq-lw"])
def test_files_give_the_codes_and_losses_of_memory(tiny: Llama, tmp_path: Path, salq_home: Path, name: str) -> None:
    in_memory, in_files = DirectoryBlocks(tmp_path / "memory"), DirectoryBlocks(tmp_path / "files")
    one, two = calibrated(tiny, name, in_memory, None), calibrated(tiny, name, in_files, NOTHING)
    told = [event.value for events in (one, two) for event in events if isinstance(event, ev.MetricReported)]
    assert [value["where"] for value in told] == ["device", "disk"]
    assert "1e-09 GB, as stated" in told[1]["reason"]
    losses = [[event.loss for event in events if isinstance(event, ev.StepDone)] for events in (one, two)]
    errors = [[event.output_error for event in events if isinstance(event, ev.BlockDone)] for events in (one, two)]
    assert losses[0] == losses[1]
    assert errors[0] == errors[1]
    for index in range(tiny.n_blocks):
        assert in_memory.path(index).read_bytes() == in_files.path(index).read_bytes()
    assert list(salq_home.iterdir()) == []


def test_a_run_may_be_resumed_with_another_budget(tiny: Llama, tmp_path: Path) -> None:
    whole, cut = DirectoryBlocks(tmp_path / "whole"), DirectoryBlocks(tmp_path / "cut")
    calibrated(tiny, "apiq", whole, None)
    calibrated(tiny, "apiq", cut, None)
    cut.path(1).unlink()
    calibrated(tiny, "apiq", cut, NOTHING)
    assert cut.path(1).read_bytes() == whole.path(1).read_bytes()


@pytest.mark.parametrize("where", ["device", "host", "disk"])
def test_rows_are_read_and_written_alike_everywhere(where: places.Where, salq_home: Path) -> None:
    values = torch.randn(7, 5, 3, generator=torch.Generator().manual_seed(0))
    samples = StreamMemory(where, CPU).empty(7, 5, 3)
    for rows in (slice(0, 4), slice(4, 7)):
        samples[rows] = values[rows]
    order = torch.tensor([6, 0, 3])
    assert tuple(samples.shape) == (7, 5, 3)
    assert samples.device == CPU
    assert len(samples) == 7
    assert torch.equal(samples[order], values[order])
    assert torch.equal(samples[1:3], values[1:3])
    if where == "disk" and os.name == "posix":
        assert list(salq_home.iterdir()) == []  # the file has no name even while it is in use: a killed process leaves none


def test_a_batch_holds_no_more_tokens_than_fit() -> None:
    assert list(batches((5, 1024, 8))) == [slice(0, 2), slice(2, 4), slice(4, 5)]
    assert list(batches((2, 4096))) == [slice(0, 1), slice(1, 2)]


def test_streams_use_their_room_again(tiny: Llama) -> None:
    """Four arrays serve any number of blocks, and the targets are what the teacher gives on either stream."""
    streams = Streams(tiny, random_tokens(tiny.config.vocab_size, 4, 24), CPU)
    seen = set()
    for block in (0, 1, 0):
        full, quantized = streams.full.clone(), streams.quantized.clone()
        targets = streams.targets(tiny.blocks[block], augmented=True)
        with torch.no_grad():
            assert torch.equal(targets.on_full, tiny.blocks[block](full, **streams.kwargs))
            assert torch.equal(targets.on_quantized, tiny.blocks[block](quantized, **streams.kwargs))
            want = tiny.blocks[1](quantized, **streams.kwargs)
        seen |= {array.data_ptr() for array in (streams.full, streams.quantized, targets.on_full, targets.on_quantized)}
        streams.advance(tiny.blocks[1])  # any block stands for the quantized one
        assert streams.full is targets.on_full
        assert torch.equal(streams.quantized, want)
    assert len(seen) == 4


def test_a_mapped_file_is_not_this_process_s_memory() -> None:
    """Writing and reading 192 MB leaves the high-water mark of the process near the size of a batch."""
    peak = PeakMemory(CPU)
    before = peak.gb()
    samples = StreamMemory("disk", CPU).empty(48, 1000, 1000)
    for rows in batches(samples.shape):
        samples[rows] = torch.full((rows.stop - rows.start, 1000, 1000), float(rows.start))
    assert sum(float(samples[rows].mean()) for rows in batches(samples.shape)) == sum(range(0, 48, 2))
    assert peak.gb() - before < 0.1


def test_a_disk_that_refuses_is_told_before_any_work(tiny: Llama, tmp_path: Path, salq_home: Path) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, limits[1]))
    try:
        with pytest.raises(ResourceError, match="No space is left on the disk"):
            calibrated(tiny, "apiq", DirectoryBlocks(tmp_path / "blocks"), NOTHING)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert list(salq_home.iterdir()) == []
    assert not list((tmp_path / "blocks").glob("*.safetensors"))


def test_a_file_system_that_cannot_reserve_gets_zeros(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delattr(os, "posix_fallocate")  # as on macOS
    mapping = places.mapped(3_000_001, tmp_path)
    assert len(mapping) == 3_000_001
    assert not any(mapping[::50_000])


@pytest.mark.parametrize(
    ("device", "budget", "gpu_free", "host_free", "where"),
    [
        ("cpu", None, 0, 10, "device"),
        ("cpu", None, 0, 7, "disk"),
        ("cpu", 5, 0, 1, "device"),  # stated: that it cannot be is for the check of memory to say
        ("cpu", 3, 0, 100, "disk"),
        ("cuda:0", None, 20, 100, "device"),
        ("cuda:0", 2, 20, 100, "host"),
        ("cuda:0", None, 6, 100, "host"),
        ("cuda:0", 2, 20, 6, "disk"),
    ],
)
def test_where_four_gigabytes_go(
    monkeypatch: pytest.MonkeyPatch, device: str, budget: float | None, gpu_free: float, host_free: float, where: str
) -> None:
    monkeypatch.setattr(places, "available_memory_gb", lambda on: host_free if on.type == "cpu" else gpu_free)
    found = placement(4.0, torch.device(device), budget)
    assert found.where == where
    assert ("as stated" in found.reason) == (budget is not None)


def test_what_loads_before_them_counts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(places, "available_memory_gb", lambda _: 10.0)
    assert placement(4.0, CPU, taken_gb=1.0).where == "device"
    assert placement(4.0, CPU, taken_gb=3.0).where == "disk"


def test_the_estimate_counts_what_is_where() -> None:
    config = LlamaConfig(**CATALOGUE["smollm2-135m"].config)

    def expected(budget: float | None) -> object:
        return estimate(config, recipes.get("apiq", overrides={"n_samples": 4096, "seq_len": 512, "streams_gb": budget}))

    needed = streams_gb(recipes.get("apiq"), 4096 * 512, config.hidden_size, config.intermediate_size)
    assert needed == pytest.approx(4 * 4 * 4096 * 512 * 576 / 1e9)
    inside, outside = expected(1000.0), expected(0.5)
    assert inside.memory_gb - outside.memory_gb == pytest.approx(needed, rel=0.15)
    assert outside.disk_gb - inside.disk_gb == pytest.approx(needed)
    assert "19 GB and live in a file (budget on cpu: 0.5 GB, as stated)" in outside.basis


@pytest.mark.parametrize("budget", [0, -1.0, float("nan"), float("inf"), "much"])
def test_a_budget_is_a_positive_number(budget: object) -> None:
    with pytest.raises((ConfigError, SalqError), match="streams_gb"):
        recipes.get("apiq", overrides={"streams_gb": budget})


def test_host_memory_beside_the_device_is_an_array_of_its_own() -> None:
    assert isinstance(StreamMemory("host", CPU).empty(2, 3, 4), Activations)
