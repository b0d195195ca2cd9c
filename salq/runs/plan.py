"""What can be known before weights are read: shapes that fit, room on disk and in memory, and how long it will take."""

import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from salq.calibration.compiled import check_compiler
from salq.calibration.estimate import OVERHEAD, Estimate, estimate, machine_speed
from salq.core.device import DeviceChoice, available_memory_gb, choose_device
from salq.core.errors import ResourceError, ShapeError
from salq.core.files import size_words
from salq.models.catalogue import CATALOGUE, parameters_of
from salq.models.llama import read_config
from salq.models.shapes import linear_shapes
from salq.models.source import resolve
from salq.quant.mixed import check_group_sizes, check_rules
from salq.quant.size import SizeReport
from salq.runs.limits import Limits
from salq.runs.requests import CalibrateRequest, ExploreRequest

GB = 1e9
Shapes = Mapping[str, tuple[int, int]]


@dataclass(frozen=True)
class Plan:
    """A calibration before it starts: where it will run and why, what it will take, how large the result will be."""

    choice: DeviceChoice
    estimate: Estimate
    size: SizeReport
    parameters: int
    n_blocks: int


def plan(request: CalibrateRequest, *, config: Mapping[str, Any] | None = None) -> Plan:
    """Check a request and estimate it. `config`: the model's, when it is at hand; a catalogue model needs no download for it.

    Raises the errors of `Limits.check`, ShapeError for a group size or rank that does not fit, ConfigError for a device or a compiler that is not
    there, and those of `resolve` for a model that is not in the catalogue.
    """
    limits = Limits.here()
    limits.check(request)
    config = config or config_of(request.model)
    parameters = parameters_of(dict(config))
    limits.check_parameters(request.model, parameters)
    n_blocks = min(request.n_blocks or config["num_hidden_layers"], config["num_hidden_layers"])
    shapes = linear_shapes(config, n_blocks)
    check_rules(request.recipe.mixed, linear_shapes(config))
    check_shapes(request, shapes)
    choice = choose_device(request.device)
    if request.recipe.compile is not None:
        check_compiler(choice.device)
    tokens = request.evaluation.windows * request.evaluation.window
    expected = estimate(SimpleNamespace(**config), request.recipe, n_blocks=n_blocks, device=choice.device, evaluation_tokens=tokens)
    return Plan(choice, expected, request.recipe.size(shapes, parameters), parameters, n_blocks)


def exploring_seconds(request: ExploreRequest, config: Mapping[str, Any]) -> float:
    """Expected time of an exploration: its arithmetic (`exploring_shares`) over this machine's measured speed.

    Raises ConfigError for a device that is not there.
    """
    device = choose_device(request.device).device
    flops, _ = machine_speed(device.type, device.index)
    tokens = request.n_samples * request.seq_len
    return OVERHEAD * sum(exploring_shares(request).values()) * tokens * parameters_of(dict(config)) / flops


def exploring_shares(request: ExploreRequest) -> dict[str, float]:
    """Rough shares of time by phase, in floating-point operations per token and weight: a forward and a backward pass for saliency, a forward
    pass and the inputs' Gram matrices for errors, and a little for each further grid.
    """
    saliency, grids = 6.0 if request.saliency else 0.0, len(request.specs) + (request.run is not None)
    errors = 4.0 + 0.3 * grids if grids else 0.0
    depth = 0.8 * grids
    return {"load": 0.05 * (saliency + errors), "saliency": saliency, "errors": errors, "depth": depth, "maps": 0.5 if request.specs else 0.0}


def check_room(planned: Plan, model: str, root: Path) -> None:
    """Raise ResourceError when the disk of `root` or the device's memory cannot hold what the plan expects."""
    free = shutil.disk_usage(_existing(root)).free / GB
    if free < planned.estimate.disk_gb:
        raise ResourceError(
            f"This run writes about {size_words(planned.estimate.disk_gb)} and {root} has {size_words(free)} free; "
            "free some space or point SALQ_HOME at another disk."
        )
    memory = available_memory_gb(planned.choice.device)
    if memory < planned.estimate.memory_gb:
        raise ResourceError(
            f"Calibrating {model} takes about {size_words(planned.estimate.memory_gb)} of memory and {size_words(memory)} are free on "
            f"{planned.choice.device}; choose a smaller model, fewer or shorter samples, or another device."
        )


def config_of(model: str) -> dict[str, Any]:
    """The model's config values: the catalogue's own, else from its folder, which may first have to be fetched."""
    entry = CATALOGUE.get(model)
    return dict(entry.config) if entry is not None else read_config(resolve(model)).to_dict()


def check_shapes(request: CalibrateRequest, shapes: Shapes) -> None:
    """Raise ShapeError for a group size that does not divide a matrix, or an adapter rank larger than one."""
    check_group_sizes(request.recipe.specs(shapes), shapes)
    rank = request.recipe.rank
    for name, shape in shapes.items():
        if rank > min(shape):
            raise ShapeError(f"{name}: adapter rank {rank} is larger than this {shape[0]} x {shape[1]} matrix; use at most {min(shape)}.")


def _existing(folder: Path) -> Path:
    return next(path for path in (folder, *folder.parents) if path.exists())
