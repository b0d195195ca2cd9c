"""What the lessons draw when they are not on a toy: numbers of a real model, measured by `lessons.measure` and kept in assets/results.

Light: no torch. The page sends these values to the browser, which does the arithmetic of `salq.quant` on them.
"""

import json
from pathlib import Path

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from salq.core.errors import StoreError
from salq.core.files import atomic_path
from salq.runs.exploration import kept_folder

Matrix = tuple[tuple[float, ...], ...]
"""Rows of numbers."""


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Row(_Part):
    """Consecutive weights of one row of a matrix."""

    row: int = Field(ge=0, description="Index of the output that the weights belong to.")
    start: int = Field(ge=0, description="Index of the first input.")
    weights: tuple[float, ...] = Field(description="Weights, in weight units; a multiple of 64 of them.")


class Learned(_Part):
    """What a calibration chose for the group of the number line."""

    name: str = Field(description="The calibration, such as `apiq w3g64`.")
    bits: int = Field(description="Width of its codes.")
    lower: float = Field(description="Lowest level as a fraction of the group's lowest weight; 1 when no weight is negative.")
    upper: float = Field(description="Highest level as a fraction of the group's highest weight; 1 when no weight is positive.")
    total: float = Field(ge=0, description="Sum of (w - w_hat)^2 over the group, without the adapter.")


class Patch(_Part):
    """One group of each of some evenly spread rows of a matrix, with saliency."""

    matrix: str = Field(description="Path of the matrix inside the block.")
    rows: tuple[int, ...] = Field(description="Outputs that the rows belong to.")
    start: int = Field(ge=0, description="First input.")
    weights: Matrix = Field(description="[rows][group] weights.")
    saliency: Matrix | None = Field(default=None, description="[rows][group] diagonal of the empirical Fisher matrix, nats^2 per squared weight.")


class Spectrum(_Part):
    """Singular values of what rounding to nearest takes away from a matrix, descending."""

    shape: tuple[int, int] = Field(description="(out, in) of the matrix or of the part of it that was looked at.")
    group_size: int = Field(ge=2, description="Inputs that share one scale and zero point.")
    weight: dict[str, tuple[float, ...]] = Field(description="By bits: singular values of W - W_hat, weight units.")
    output: dict[str, tuple[float, ...]] = Field(default={}, description="By bits: singular values of (W - W_hat) X over all inputs X of the text.")
    random: tuple[float, ...] = Field(description="Singular values of a Gaussian matrix of the same shape with entries of variance 1.")
    weight_norm: float = Field(gt=0, description="Frobenius norm of W.")
    output_norm: float | None = Field(default=None, description="Frobenius norm of W X.")


class Travel(_Part):
    """Relative error of the hidden state after each block: mean over tokens of |h_hat - h| / |h|. [n_blocks] each."""

    alone: tuple[float, ...] = Field(description="Only this block rounded, its input exact.")
    together: tuple[float, ...] = Field(description="Every block rounded.")
    without: Matrix = Field(description="[b][block]: every block rounded but b; before b it is `together`.")


class Budget(_Part):
    """Predicted rise of the loss per matrix and width, for dealing out bits."""

    group_size: int = Field(ge=2, description="Inputs that share one scale and zero point.")
    linears: tuple[str, ...] = Field(description="Names of a block's matrices, in the order of the columns.")
    weights: tuple[int, ...] = Field(description="Weights of each of a block's matrices.")
    cost: dict[str, Matrix] = Field(description="By bits: [n_blocks][linear] 1/2 sum F (w - w_hat)^2, nats per sample.")
    measured: tuple["Allocated", ...] = Field(default=(), description="Perplexities that were measured for allocations of `lessons.allocation`.")


class Allocated(_Part):
    """One measured allocation: every matrix rounded to nearest at the width that it was given."""

    mean_bits: float = Field(gt=0, description="Mean width of a code that was asked for.")
    uniform: int | None = Field(default=None, description="The width of every matrix; None when saliency dealt out the bits.")
    perplexity: float = Field(gt=0, description="Perplexity of the model.")
    predicted: float = Field(ge=0, description="Sum of the costs, nats per sample.")


class Told(_Part):
    """One token of a text that another model wrote, as a quantized model sees it."""

    kl: float = Field(ge=0, description="KL(original || quantized) of the next-token distribution that this token was drawn from, nats.")
    original: tuple[tuple[str, float], ...] = Field(description="The original's most likely tokens and their probabilities.")
    quantized: tuple[tuple[str, float], ...] = Field(description="The quantized model's.")


class Talk(_Part):
    """Every token of the original's own answer, scored by quantized models."""

    prompt: str = Field(description="What was asked.")
    tokens: tuple[str, ...] = Field(description="The original's answer, token by token.")
    sides: dict[str, tuple[Told, ...]] = Field(description="By name such as `rtn w3g64`: one entry per token.")
    answers: dict[str, str] = Field(description="By name: what that model says itself, greedy; `original` among them.")


class Material(_Part):
    """Everything that the lessons can draw about one matrix and its model; parts that were not measured are None."""

    model: str = Field(description="Catalogue name, hub id or folder.")
    title: str = Field(description="The model for people.")
    block: int = Field(ge=0, description="Block of the matrix.")
    matrix: str = Field(description="Path of the matrix inside its block.")
    note: str = Field(default="", description="What a reader must know about the numbers, such as the text they were measured on.")
    group: Row = Field(description="One group, for the number line.")
    learned: tuple[Learned, ...] = Field(default=(), description="What calibrations chose for that group.")
    row: Row = Field(description="Several groups of one row.")
    patch: Patch
    spectrum: Spectrum
    shares: dict[str, float] = Field(default={}, description="Fractions for the sentences, by name: see `matrix.shares_of`.")
    travel: dict[str, Travel] = Field(default={}, description="By bits.")
    budget: Budget | None = None
    talk: Talk | None = None


def material_path(model: str) -> Path:
    """Where the material of a catalogue model is kept."""
    return kept_folder(model) / "lessons.json"


def kept_material(model: str) -> Material | None:
    """The material kept for a catalogue model; None when there is none. Raises StoreError when it is damaged."""
    path = material_path(model)
    try:
        return Material.model_validate_json(path.read_bytes())
    except FileNotFoundError:
        return None
    except (OSError, ValidationError) as error:
        raise StoreError(f"{path} cannot be read ({type(error).__name__}); `make assets` writes it anew.") from error


def keep_material(model: str, material: Material) -> None:
    """Write the material, one line per part."""
    parts = json.loads(material.model_dump_json(exclude_none=True))
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(value, ensure_ascii=False)}" for name, value in parts.items())
    with atomic_path(material_path(model)) as temporary:
        temporary.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")


def rounded(value: float, digits: int = 4) -> float:
    """`value` with that many significant digits: what is kept of a measurement."""
    return float(f"{value:.{digits}g}")
