"""What `fuzz` feeds: valid inputs, how to damage them, and the code of salq that reads them."""

import asyncio
import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch

from benchmarks.endpoints import HOSTILE, Call, calls, perform, random_call
from salq import recipes
from salq.core import events as ev
from salq.core.errors import ConfigError
from salq.core.progress import Progress
from salq.models.tiny import save_tiny
from salq.packing.files import PackedFile, write_packed
from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec
from salq.runs import log, worker
from salq.runs.limits import LOCAL, PUBLIC
from salq.runs.repeat import codes_hash
from salq.runs.requests import CalibrateRequest, ExploreRequest, parse
from salq.runs.store import RunStore

Generator = np.random.Generator


@dataclass(frozen=True)
class Target:
    """One part: valid inputs, a way to damage one, and what reads it. Reading raises a SalqError or nothing."""

    seeds: Sequence[Any]
    mutate: Callable[[Any, Generator], Any]
    read: Callable[[Any], None]


NUMBERS = (
    b"0",
    b"-1",
    b"1e999",
    b"99999999999999999999",
    b"null",
    b"true",
    b"[]",
    b"{}",
    b'""',
    b"NaN",
    b"-0.0",
    b'"\\ud800"',
    b"18446744073709551615",
)


def damaged(data: bytes, generator: Generator) -> bytes:
    """Bytes with some of them changed, removed, repeated, or replaced by numbers at the edge of what fits."""
    value = bytearray(data)
    for _ in range(int(generator.integers(1, 5))):
        at = int(generator.integers(len(value) + 1)) if generator.random() < 0.5 else int(generator.integers(min(len(value), 400) + 1))  # noqa: PLR2004
        kind = int(generator.integers(7))
        if kind == 0:
            value[at : at + 1] = bytes([int(generator.integers(256))])
        elif kind == 1:
            value[at : at + int(generator.integers(1, 60))] = b""
        elif kind == 2:  # noqa: PLR2004 - one of seven ways
            value[at:at] = generator.bytes(int(generator.integers(1, 20)))
        elif kind == 3:  # noqa: PLR2004
            value[at : at + 8] = int(generator.choice([0, 1, 255, 2**31 - 1, 2**32, 2**40, 2**63 - 1])).to_bytes(8, "little")
        elif kind == 4:  # noqa: PLR2004
            value = value[:at]
        elif kind == 5:  # noqa: PLR2004
            start = int(generator.integers(len(value) + 1))
            value[at:at] = value[start : start + int(generator.integers(1, 200))]
        else:
            value[at : at + int(generator.integers(0, 6))] = NUMBERS[int(generator.integers(len(NUMBERS)))]
    return bytes(value)


def damaged_json(value: Any, generator: Generator) -> Any:
    """A JSON value with one part of it replaced, removed or added."""
    if isinstance(value, dict) and value and generator.random() < 0.85:  # noqa: PLR2004 - mostly deeper
        name = list(value)[int(generator.integers(len(value)))]
        if generator.random() < 0.08:  # noqa: PLR2004
            return {key: item for key, item in value.items() if key != name}
        return {**value, name: damaged_json(value[name], generator)}
    if isinstance(value, list) and value and generator.random() < 0.7:  # noqa: PLR2004
        at = int(generator.integers(len(value)))
        return [*value[:at], damaged_json(value[at], generator), *value[at + 1 :]]
    return HOSTILE[int(generator.integers(len(HOSTILE)))]


def _file_target(path: Path, seeds: Sequence[bytes], read: Callable[[], None]) -> Target:
    def feed(data: bytes) -> None:
        path.unlink(missing_ok=True)  # a new file: the old one may still be mapped
        path.write_bytes(data)
        read()

    return Target(seeds, damaged, feed)


def packed(folder: Path) -> Target:
    """Packed block files."""
    path, seeds = folder / "000.safetensors", []
    for bits, symmetric in ((2, False), (3, True), (4, False), (8, False)):
        weight = torch.randn(8, 32, generator=torch.Generator().manual_seed(bits))
        write_packed(path, [("mlp.up_proj", rtn(weight, QuantSpec(bits=bits, group_size=32, symmetric=symmetric)))], rest=[("norm", weight[0])])
        seeds.append(path.read_bytes())

    def read() -> None:
        codes_hash(folder)
        file = PackedFile(path)
        file.matrices()
        list(file.rest())

    return _file_target(path, seeds, read)


def safetensors(folder: Path) -> Target:
    """Model folders: config, index, weights."""
    from salq.models.folder import check_folder, file_of, fingerprint, read_folder_config

    model = save_tiny(folder / "model", n_blocks=1)
    config, weights = (model / "config.json").read_bytes(), (model / "model.safetensors").read_bytes()
    size = int.from_bytes(weights[:8], "little")
    names = list(json.loads(weights[8 : 8 + size]))
    index = json.dumps({"weight_map": {name: "part.safetensors" for name in names if name != "__metadata__"}}).encode()
    small = folder / "small"
    small.mkdir()

    def feed(value: tuple[str, bytes]) -> None:
        name, data = value
        for known, content in (("config.json", config), ("model.safetensors.index.json", index), ("part.safetensors", HEADER)):
            (small / known).write_bytes(data if known == name else content)
        read_folder_config(small)
        check_folder(small)
        file_of(small, names[0])
        fingerprint(small)

    def mutate(value: tuple[str, bytes], generator: Generator) -> tuple[str, bytes]:
        return value[0], damaged(value[1], generator)

    return Target([("config.json", config), ("model.safetensors.index.json", index), ("part.safetensors", HEADER)], mutate, feed)


def _tiny_safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 3], "data_offsets": [0, 24]}, "__metadata__": {"format": "pt"}}).encode()
    return len(header).to_bytes(8, "little") + header + bytes(24)


HEADER = _tiny_safetensors()


def gguf(folder: Path) -> Target:
    """GGUF files, cut and altered mostly in their directory."""
    from gguf import GGUFWriter

    from salq.models.gguf import BLOCK_NAMES, read_gguf

    path = folder / "tiny.gguf"
    writer = GGUFWriter(path, "llama")
    for add, value in (
        (writer.add_block_count, 1), (writer.add_context_length, 64), (writer.add_embedding_length, 32), (writer.add_feed_forward_length, 32),
        (writer.add_head_count, 2), (writer.add_head_count_kv, 2), (writer.add_rope_freq_base, 1e4), (writer.add_layer_norm_rms_eps, 1e-5),
        (writer.add_tokenizer_pre, "smollm"), (writer.add_token_list, ["a", "b", "c"]),
    ):  # fmt: skip
        add(value)
    generator = np.random.default_rng(0)
    writer.add_tensor("token_embd.weight", generator.standard_normal((3, 32)).astype(np.float32))
    for name in BLOCK_NAMES:
        shape = (32,) if "norm" in name else (32, 32)
        writer.add_tensor(f"blk.0.{name}.weight", generator.standard_normal(shape).astype(np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()

    def read() -> None:
        read_gguf(path)

    return _file_target(path, [path.read_bytes()], read)


def events(folder: Path) -> Target:
    """Event logs."""
    from salq.ui.run_view import Watcher, errors_figure, errors_table, loss_figure, result_facts

    store = RunStore(folder / "runs")
    run_id = store.create(CalibrateRequest(model="m", recipe=recipes.get("rtn", bits=2)))  # type: ignore[arg-type]
    for event in (
        ev.RunStarted(run_id), ev.PhaseStarted("load", 1, "models"), ev.MetricReported("plan", {"load": 1.0, "calibration": 5.0}),
        ev.PhaseStep("load", 1), ev.PhaseDone("load", 1.0), ev.PhaseStarted("calibration", 2),
        ev.BlockStarted(0, 2, 2), ev.StepDone(0, "mixed", 1, 2, {"output": 1.0}),
        ev.StepDone(0, "mixed", 2, 2, {"output": 0.5}), ev.BlockDone(0, 0.1, {"q": 0.2}, 1.0, {"loss.output": 1.0}),
        ev.BlockStarted(1, 2, 0, stored=True),
        ev.MetricReported("distillation_kl", {"step": 1, "value": 0.3}), ev.PhaseDone("calibration", 2.0), ev.RunFailed("no"),
        ev.RunCancelled(1), ev.RunDone(3.0),
    ):  # fmt: skip
        store.append(run_id, event)
    path = store.folder(run_id) / "events.jsonl"

    def draw(view: Any) -> None:
        errors_figure(view)
        loss_figure(view, None)

    def read() -> None:
        assert [info.id for info in store.list()] == [run_id]
        log.fold_into(Progress(), log.read(path)[0])
        view = Watcher(store).view(run_id)
        view.stamps(None)
        errors_table(view)
        result_facts(view.info.metrics)
        if np.random.default_rng(len(path.read_bytes())).random() < 0.02:  # noqa: PLR2004 - plotly takes its time
            draw(view)

    draw(Watcher(store).view(run_id))  # what drawing imports is not the first damaged log's time
    return _file_target(path, [path.read_bytes()], read)


def links(folder: Path) -> Target:
    """Links into the page."""
    from salq.ui.links import read_link

    store = RunStore(folder / "runs")
    run_id = store.create(CalibrateRequest(model="m", recipe=recipes.get("rtn", bits=2)))  # type: ignore[arg-type]
    whole = {"model": "smollm2-135m", "bits": "3", "run": run_id, "block": "4", "matrix": "mlp.down_proj", "tab": "explore"}
    texts = [value for value in HOSTILE if isinstance(value, str)]

    def mutate(value: dict[str, str], generator: Generator) -> dict[str, str]:
        name = [*whole, "other"][int(generator.integers(len(whole) + 1))]
        if generator.random() < 0.5:  # noqa: PLR2004 - half of them anything
            return {**value, name: texts[int(generator.integers(len(texts)))]}
        return {**value, name: damaged(value.get(name, "").encode("utf-8", "replace"), generator).decode("utf-8", "replace")}

    def read(value: dict[str, str]) -> None:
        for public in (False, True):
            found = read_link(value, store, default_model="smollm2-135m", public=public)
            assert found.run in {None, run_id}

    return Target([whole], mutate, read)


def requests(folder: Path) -> Target:
    """Requests as JSON, as they lie in the store and as the page makes them."""
    from salq.runs.plan import plan

    del folder
    seeds = [CalibrateRequest(model="smollm2-135m", recipe=recipes.get(name)).to_json() for name in recipes.names()]  # type: ignore[arg-type]
    seeds.append(ExploreRequest(model="smollm2-135m", specs=(QuantSpec(bits=3),)).to_json())

    def read(value: Any) -> None:
        if not isinstance(value, dict):
            raise ConfigError("not an object")
        request = parse(value)
        request.key()
        for limits in (PUBLIC, LOCAL):
            limits.check(request)
        if isinstance(request, CalibrateRequest):
            request.recipe  # noqa: B018 - validated when it is asked for
            if request.model == "smollm2-135m":
                plan(request)

    return Target(seeds, damaged_json, read)


def endpoints(folder: Path) -> Target:
    """Raw calls of every endpoint of the page, on a person's machine."""
    from salq.ui.page import build_page

    store = RunStore(folder / "runs")
    page = build_page(store)
    worker.start = lambda *_: True  # type: ignore[assignment] - the calls are what is looked at, not the runs that a valid one starts
    loop = asyncio.new_event_loop()

    def mutate(_: Call, generator: Generator) -> Call:
        return random_call(page, generator)

    def read(call: Call) -> None:
        loop.run_until_complete(perform(page, call))
        for run_id in store.ids()[20:]:
            store.delete(run_id)

    return Target(list(calls(page, 1, seed=0)), mutate, read)


PARTS: dict[str, Callable[[Path], Target]] = {
    "packed": packed, "safetensors": safetensors, "gguf": gguf, "events": events, "links": links, "requests": requests, "endpoints": endpoints,
}  # fmt: skip
