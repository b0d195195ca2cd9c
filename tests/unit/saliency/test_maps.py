"""Maps on disk: complete or absent, found by what they were computed from, the same however they were computed."""

import dataclasses
import json
import os
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch

from salq.core import settings
from salq.core.drain import drain
from salq.core.errors import ConfigError, ResourceError, ShapeError, StoreError, TextError, UnknownNameError
from salq.core.events import Event, MetricReported, PhaseDone, PhaseStarted, PhaseStep
from salq.data.text import Text
from salq.data.windows import sample_windows
from salq.models.llama import LINEARS, Llama
from salq.saliency import maps
from salq.saliency.fisher import fisher_diagonal
from salq.saliency.maps import SaliencyMap, compute_saliency, find, saliency_key, saliency_map

SAMPLING: dict[str, Any] = {"n_samples": 5, "seq_len": 16, "seed": 3}


@pytest.fixture
def text() -> Text:
    content = "".join(chr(97 + (i * i + i // 7) % 26) for i in range(600))
    return Text(name="letters", title="Letters", content=content, sha256="0" * 64, licence="CC0-1.0", origin="made by a test")


def compute(model: Llama, text: Text, **changes: Any) -> SaliencyMap:
    return drain(compute_saliency(model, text, **{**SAMPLING, **changes}))


def test_a_map_holds_the_fisher_diagonal_of_every_matrix(tiny: Llama, text: Text) -> None:
    made = compute(tiny, text)
    tokens = sample_windows(text, tiny.tokenizer, SAMPLING["n_samples"], SAMPLING["seq_len"], SAMPLING["seed"])
    wanted = drain(fisher_diagonal(tiny, tokens))
    assert made.n_blocks == 2
    assert (made.n_samples, made.seq_len) == (5, 16)
    for block, matrices in wanted.items():
        stored = made.block(block)
        assert list(stored) == list(LINEARS)
        for column, (name, matrix) in enumerate(matrices.items()):
            assert torch.equal(stored[name], matrix)
            assert made.grid()[block][column] == pytest.approx(float(matrix.mean()), rel=1e-5)


def test_found_again_by_what_it_was_computed_from(tiny: Llama, text: Text) -> None:
    key = saliency_key(fingerprint=tiny.source.fingerprint, text_sha256=text.sha256, **SAMPLING)
    assert find(key) is None
    made = compute(tiny, text)
    assert made.folder.name == key
    assert find(key) == made
    meta = made.meta
    assert (meta.fingerprint, meta.text, meta.text_sha256, meta.seed) == (tiny.source.fingerprint, "letters", text.sha256, 3)
    assert (meta.device, meta.dtype, meta.linears) == ("cpu", "float32", list(LINEARS))


@pytest.mark.parametrize("change", [{"n_samples": 4}, {"seq_len": 15}, {"seed": 4}, {"text_sha256": "1" * 64}, {"fingerprint": "other"}])
def test_another_sampling_text_or_model_is_another_key(change: dict[str, Any]) -> None:
    given = {"fingerprint": "one", "text_sha256": "0" * 64, **SAMPLING}
    assert saliency_key(**{**given, **change}) != saliency_key(**given)


@pytest.mark.parametrize("key", ["", "..", "../../etc", "0" * 31, "0" * 32 + "/..", "Z" * 32])
def test_only_keys_are_looked_up(key: str) -> None:
    (settings.saliency_dir() / "meta.json").parent.mkdir(parents=True)
    (settings.saliency_dir() / "meta.json").write_text("{}")
    assert find(key) is None


def test_events_are_a_whole_phase(tiny: Llama, text: Text) -> None:
    events: list[Event] = list(compute_saliency(tiny, text, **SAMPLING, batch_size=2))
    assert events[0] == PhaseStarted("saliency", of=5, unit="samples")
    assert [event.done for event in events if isinstance(event, PhaseStep)] == [2, 4, 5]
    [report] = [event for event in events if isinstance(event, MetricReported)]
    assert report.name == "saliency"
    assert report.value["n_nonfinite"] == 0
    assert json.loads(json.dumps(report.value)) == report.value
    assert isinstance(events[-1], PhaseDone)


def test_the_second_time_nothing_is_computed(tiny: Llama, text: Text) -> None:
    first = compute(tiny, text)
    events = list(compute_saliency(tiny, text, **SAMPLING))
    assert not any(isinstance(event, PhaseStep) for event in events)
    assert compute(tiny, text) == first


def test_chunks_of_blocks_and_batches_give_the_same_map(tiny: Llama, text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = compute(tiny, text)
    shutil.move(whole.folder, whole.folder.with_name("whole"))
    whole = SaliencyMap(whole.folder.with_name("whole"))
    monkeypatch.setattr("salq.saliency.fisher.ACCUMULATOR_GB", 0.0)
    events = compute_saliency(tiny, text, **SAMPLING, batch_size=1)
    assert next(events) == PhaseStarted("saliency", of=10, unit="samples")  # one pass over 5 samples for each of 2 blocks
    chunked = drain(events)
    for block in range(2):
        for name in LINEARS:
            torch.testing.assert_close(
                chunked.matrix(block, name), whole.matrix(block, name), rtol=1e-4, atol=1e-6 * float(whole.matrix(block, name).max())
            )


def test_nothing_is_left_of_a_pass_that_was_stopped(tiny: Llama, text: Text) -> None:
    events = compute_saliency(tiny, text, **SAMPLING, batch_size=1)
    next(events)
    next(events)
    assert list(settings.saliency_dir().iterdir())
    events.close()
    assert not list(settings.saliency_dir().iterdir())


def test_what_a_killed_process_left_is_swept_after_a_day(tiny: Llama, text: Text) -> None:
    old, young = settings.saliency_dir() / ".old.x", settings.saliency_dir() / ".young.x"
    old.mkdir(parents=True)
    young.mkdir()
    os.utime(old, (0, 0))
    compute(tiny, text)
    assert not old.exists()
    assert young.exists()


def test_two_at_once_make_one_map(tiny: Llama, text: Text) -> None:
    slow = compute_saliency(tiny, text, **SAMPLING)
    next(slow)
    next(slow)
    quick = compute(tiny, text)
    assert drain(slow) == quick
    assert [folder.name for folder in settings.saliency_dir().iterdir()] == [quick.folder.name]


def test_nonfinite_saliency_is_counted(tiny: Llama, text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*args: Any, **keywords: Any) -> Any:
        totals = yield from fisher_diagonal(*args, **keywords)
        totals[1]["mlp.down_proj"][0, :2] = torch.tensor([torch.nan, torch.inf])
        totals[0]["mlp.up_proj"][:] = torch.nan
        return totals

    monkeypatch.setattr(maps, "fisher_diagonal", broken)
    made = compute(tiny, text)
    up, down = LINEARS.index("mlp.up_proj"), LINEARS.index("mlp.down_proj")
    assert made.meta.n_nonfinite[1][down] == 2
    assert made.grid()[1][down] is not None
    assert made.grid()[0][up] is None
    assert made.summary()["n_nonfinite"] == 2 + tiny.linears(0)["mlp.up_proj"].weight.numel()


def test_a_map_of_another_model_is_refused(tiny: Llama, text: Text) -> None:
    made = compute(tiny, text)
    made.check_model(tiny)
    other = dataclasses.replace(tiny, name="other", source=dataclasses.replace(tiny.source, fingerprint="other"))
    with pytest.raises(ShapeError, match="not for other"):
        made.check_model(other)


def test_blocks_and_matrices_that_do_not_exist(tiny: Llama, text: Text) -> None:
    made = compute(tiny, text)
    with pytest.raises(ConfigError, match="use 0 to 1"):
        made.matrix(2, "mlp.up_proj")
    with pytest.raises(UnknownNameError, match=r"choose one of: self_attn.q_proj"):
        made.matrix(0, "mlp.side_proj")


def test_a_damaged_map_says_what_to_do(tiny: Llama, text: Text) -> None:
    made = compute(tiny, text)
    (made.folder / "blocks" / "001.safetensors").write_bytes(b"torn")
    with pytest.raises(StoreError, match="delete that folder"):
        made.matrix(1, "mlp.up_proj")
    (made.folder / "meta.json").write_text('{"format": 1, ')
    with pytest.raises(StoreError, match="delete that folder"):
        SaliencyMap(made.folder).grid()


@pytest.mark.parametrize(
    ("changes", "sentence"),
    [({"n_samples": 0}, "at least one sample"), ({"seq_len": 1}, "2 to"), ({"seq_len": 10**6}, "2 to"), ({"batch_size": 0}, "batch size")],
)
def test_absurd_numbers_are_refused(tiny: Llama, text: Text, changes: dict[str, int], sentence: str) -> None:
    with pytest.raises(ConfigError, match=sentence):
        compute(tiny, text, **changes)


def test_a_text_shorter_than_one_sample_is_refused(tiny: Llama, text: Text) -> None:
    with pytest.raises(TextError):
        compute(tiny, dataclasses.replace(text, content="too short"))


def test_a_full_disk_is_told_before_any_work(tiny: Llama, text: Text, monkeypatch: pytest.MonkeyPatch) -> None:
    usage = type("Usage", (), {"free": 1000})
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage)
    with pytest.raises(ResourceError, match="SALQ_HOME"):
        compute(tiny, text)


def test_the_python_call_reads_a_file(tiny: Llama, tmp_path: Path, text: Text) -> None:
    path = tmp_path / "letters.txt"
    path.write_text(text.content, encoding="utf-8")
    made = saliency_map(tiny, n_samples=2, seq_len=8, text=str(path), seed=1)
    assert made.n_samples == 2
    assert made.block(1)["self_attn.q_proj"].shape == tiny.linears(1)["self_attn.q_proj"].weight.shape
