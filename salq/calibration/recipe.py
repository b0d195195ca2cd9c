"""A method as a value: quantizer x trainable parameters x objective x regularizer x data.

The engine reads a recipe and never asks for its name. Recipes are JSON; unknown keys are refused.
"""

from collections.abc import Iterable, Mapping
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, model_validator

from salq.calibration.distillation import Distillation
from salq.calibration.objectives import OutputMSE
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.sliced_wasserstein import SlicedWasserstein
from salq.core.errors import ConfigError
from salq.quant.adapter import LoRA
from salq.quant.binary_mos import BinaryMoS
from salq.quant.clipping import LWC, MinMax
from salq.quant.dual_binary import DualBinary
from salq.quant.mixed import SpecRule, grids, rules_of
from salq.quant.size import SizeReport, size_report
from salq.quant.spec import QuantSpec

Group = Literal["clipping", "adapter", "weight"]
Quantizer = Annotated[LWC | MinMax | DualBinary | BinaryMoS, Field(discriminator="kind")]


class Fit(BaseModel):
    """One stage of a block's calibration: what is minimised, over what, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="output", pattern=r"^[a-z_]{1,20}$", description="Name in events and curves; SAPR's are weight, mixed and output.")
    epochs: int = Field(default=20, ge=0, le=1000, description="Passes over the calibration samples; 0 skips the stage.")
    objective: OutputMSE | None = Field(default=OutputMSE(), description="Term on the block's output; none leaves only the regularizer.")
    regularizer: WeightPreservation | None = Field(default=None, description="Term on the weights.")
    sliced_wasserstein: SlicedWasserstein | None = Field(default=None, description="Second term on the block's output.")
    batch_size: int = Field(default=1, ge=1, le=1024, description="Samples per optimizer step.")
    lr_clipping: float = Field(default=5e-3, ge=0, le=10, description="Learning rate of the clipping logits; 0 leaves them alone.")
    lr_adapter: float = Field(default=5e-4, ge=0, le=10, description="Learning rate of the adapters; 0 leaves them alone.")
    lr_weight: float | None = Field(
        default=None, gt=0, le=10, description="Learning rate of the weights themselves, through straight-through rounding; none: they stay."
    )
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="AdamW's decoupled weight decay, for everything that is learned.")
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="Learning rate over the stage's steps.")

    @property
    def rates(self) -> dict[Group, float]:
        """Learning rate of every group of parameters."""
        return {"clipping": self.lr_clipping, "adapter": self.lr_adapter, "weight": self.lr_weight or 0.0}

    @property
    def is_weighted_by_saliency(self) -> bool:
        """Whether one of its terms is."""
        term = self.regularizer
        return (term is not None and term.weighted and term.strength > 0) or (self.objective is not None and self.objective.channels == "saliency")

    @model_validator(mode="after")
    def _has_a_term(self) -> "Fit":
        if self.objective is None and self.regularizer is None:
            raise ValueError(f"stage {self.name!r} minimises nothing: give it an objective, a regularizer or both")
        if self.sliced_wasserstein is not None and self.objective is None:
            raise ValueError(f"stage {self.name!r} has a sliced Wasserstein term, which is a share of the output loss; give it an objective")
        return self


class CalibrationData(BaseModel):
    """The text windows that calibration sees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(default=128, ge=1, le=65536, description="Calibration samples (text windows).")
    seq_len: int = Field(default=2048, ge=8, le=8192, description="Tokens per calibration sample.")
    streams_gb: float | None = Field(
        default=None,
        gt=0,
        le=100_000,
        description="GB of the device's memory that activations of the samples may take; beyond it they live in the host's memory or in a file, "
        "which changes time and not the result; none: half of what is free.",
    )


class SaliencyData(BaseModel):
    """The text windows that saliency is computed on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(default=100, ge=1, le=65536, description="Samples for the saliency map.")
    seq_len: int = Field(default=512, ge=8, le=8192, description="Tokens per saliency sample.")
    refresh: int | None = Field(
        default=None,
        ge=1,
        le=10_000,
        description="Blocks after which saliency is computed again, on the model quantized so far; none: once, on the original.",
    )


class Recipe(BaseModel):
    """Everything that a calibration does, resolved: no defaults are filled in later."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(pattern=r"^[a-z0-9-]{1,40}$")
    preset: str = "published"
    spec: QuantSpec = QuantSpec()
    quantizer: Quantizer = LWC()
    adapter: LoRA | None = None
    stages: tuple[Fit, ...] = ()
    data: CalibrationData | None = None
    saliency: SaliencyData | None = None
    distillation: Distillation | None = None
    granularity: Literal["linear"] | None = Field(
        default=None, description="linear: one linear after the other preserves its own output (ApiQ-lw); none: each block as a whole."
    )
    optimizer_state: Literal["kept"] | None = Field(
        default=None, description="kept: one AdamW through all stages, whose rates and decay change (released SAPR); none: a fresh one per stage."
    )
    rounding: Literal["compensated"] | None = Field(
        default=None, description="compensated: each column's rounding error is made up for by the columns after it (GPTQ); none: to nearest."
    )
    compile: Literal["block"] | None = Field(
        default=None,
        description="block: each block's passes by torch.compile, which takes half a minute once and makes every step faster; none: as they come.",
    )
    mixed: Annotated[tuple[SpecRule, ...] | None, BeforeValidator(rules_of)] = Field(
        default=None, description="Other grids for some matrices, first fit wins, such as 0.mlp.down_proj:w8g64 *.down_proj:w4g64; none: all alike."
    )

    @model_validator(mode="after")
    def _is_consistent(self) -> "Recipe":
        if self.stages and self.data is None:
            raise ValueError("a recipe with stages needs calibration data (data.n_samples, data.seq_len)")
        if self.needs_saliency and self.saliency is None:
            raise ValueError("what is weighted by saliency needs saliency data (saliency.n_samples, saliency.seq_len)")
        if self.needs_moments and self.data is None:
            raise ValueError("what looks at the linears' inputs needs calibration data (data.n_samples, data.seq_len)")
        if self.refresh is not None and not self.needs_saliency:
            raise ValueError(
                "saliency.refresh computes saliency again, and nothing in this recipe is weighted by it: leave it out, or use a weighted regularizer "
                "with a strength above 0, objective.channels=saliency or adapter.start=saliency"
            )
        if self.stages and isinstance(self.quantizer, MinMax) and self.adapter is None and not self.trains_weights:
            raise ValueError("the stages have nothing to learn: use the lwc quantizer, an adapter or both")
        if self.stages and not self.active_stages and self.distillation is None and not self.has_start:
            raise ValueError("every stage has 0 epochs, so nothing would be learned; give one stage an epoch, or use recipe rtn")
        for stage in self.active_stages:
            self._check_stage(stage)
            if self.granularity == "linear" and stage.objective is not None and stage.objective.channels is not None:
                raise ValueError("channels of a block's output can be weighted only when blocks are fitted as a whole; leave granularity out")
        self._check_specs()
        if self.quantizer.grid != "uniform":
            self._check_other_grid()
        if not self.quantizer.has_weight:
            self._check_without_weight()
        return self

    def _check_stage(self, stage: Fit) -> None:
        learns = self.learns(stage)
        if not learns:
            raise ValueError(
                f"stage {stage.name!r} has nothing to learn: its learning rates are 0 or belong to parts that this recipe lacks "
                "(clipping without a learnable quantizer, an adapter of rank 0)"
            )
        term = stage.regularizer
        if term is not None and term.strength > 0 and term.where == "before_lora" and not learns & {"clipping", "weight"}:
            raise ValueError(
                f"stage {stage.name!r} compares weights before the adapter, which nothing in it can change; "
                "use after_lora, or a learnable quantizer with lr_clipping above 0"
            )

    def _check_specs(self) -> None:
        try:
            for spec in (self.spec, *(rule.spec for rule in self.mixed or ())):
                self.quantizer.check(spec)
        except ConfigError as error:
            raise ValueError(str(error).rstrip(".")) from error

    def _check_other_grid(self) -> None:
        """Refuse what is defined for a uniform grid alone."""
        if self.trains_weights:
            raise ValueError("weights are trained through rounding to a uniform grid; leave lr_weight out, or use the lwc quantizer")
        if self.rounding is not None:
            raise ValueError("columns make up for each other's rounding on a uniform grid; leave rounding out, or use the lwc quantizer")
        if self.distillation is not None:
            raise ValueError("an end-to-end pass learns the scales of a uniform grid; leave distillation out, or use the lwc quantizer")

    def _check_without_weight(self) -> None:
        """Refuse what compares weights, where no matrix stands for what the quantizer applies."""
        if any(stage.regularizer is not None for stage in self.active_stages):
            raise ValueError(
                f"a regularizer compares weights, and {self.quantizer.kind} has none that all tokens share: its scales follow the token; "
                "leave the regularizer out, or use the lwc quantizer"
            )
        if self.adapter is not None and self.adapter.start is not None:
            raise ValueError(f"adapters cannot start at what rounding a weight loses, because {self.quantizer.kind} has no weight; leave start out")

    def learns(self, stage: Fit) -> set[Group]:
        """The groups of parameters that `stage` changes."""
        exists: dict[Group, bool] = {"clipping": self.quantizer.is_learnable, "adapter": self.adapter is not None, "weight": True}
        return {group for group, rate in stage.rates.items() if rate > 0 and exists[group]}

    def spec_of(self, block: int, module_name: str) -> QuantSpec:
        """The grid of one matrix."""
        name = f"{block}.{module_name}"
        return self.specs([name])[name]

    def specs(self, names: Iterable[str]) -> dict[str, QuantSpec]:
        """{name: its grid} of the matrices `names` ('block.module_name')."""
        return grids(self.spec, self.mixed, names)

    def size(self, shapes: Mapping[str, tuple[int, int]], parameters: int) -> SizeReport:
        """What a model of `parameters` weights, whose matrices `shapes` ({'block.module_name': (out, in)}) are quantized, weighs with this recipe."""
        experts = self.quantizer.experts if isinstance(self.quantizer, BinaryMoS) else 0
        return size_report(self.specs(shapes), shapes, parameters, self.rank, self.quantizer.grid, experts)

    @property
    def rank(self) -> int:
        """Rank of the adapters, 0 without."""
        return 0 if self.adapter is None else self.adapter.rank

    @property
    def active_stages(self) -> tuple[Fit, ...]:
        """The stages that do something."""
        return tuple(stage for stage in self.stages if stage.epochs > 0)

    @property
    def streams_budget_gb(self) -> float | None:
        """What activations may take on the device, in GB; None: half of what is free."""
        return None if self.data is None else self.data.streams_gb

    @property
    def is_augmented(self) -> bool:
        """Whether blocks are also taught with the teacher's output on the quantized inputs; linear by linear, targets are made from these."""
        return self.granularity is None and any(stage.objective is not None and stage.objective.augmented for stage in self.active_stages)

    @property
    def needs_saliency(self) -> bool:
        """Whether an active stage weights its regularizer or its output loss by saliency, or the adapters start from it."""
        return "saliency" in self._starts or any(stage.is_weighted_by_saliency for stage in self.active_stages)

    @property
    def trains_weights(self) -> bool:
        """Whether a stage of the blocks learns the weights."""
        return any(stage.lr_weight for stage in self.active_stages)

    @property
    def needs_moments(self) -> bool:
        """Whether clipping, codes or adapters are set so that the linears' outputs change least, for which their inputs have to be seen."""
        return self.rounding is not None or "output" in self._starts

    @property
    def searches_clipping(self) -> bool:
        """Whether clipping starts where a search finds the least error."""
        return self.quantizer.start is not None

    @property
    def has_start(self) -> bool:
        """Whether anything is set in closed form before the first step."""
        return self.rounding is not None or bool(self._starts)

    @property
    def _starts(self) -> set[str]:
        """Where clipping and adapters start, other than as published."""
        adapter = None if self.adapter is None else self.adapter.start
        return {start for start in (self.quantizer.start, adapter) if start is not None}

    @property
    def refresh(self) -> int | None:
        """Blocks after which saliency is computed again on the model quantized so far; None: it is that of the original."""
        return None if self.saliency is None else self.saliency.refresh

    @property
    def needs_data(self) -> bool:
        """Whether the stages of the blocks learn from text, or their start looks at it."""
        return bool(self.active_stages) or self.needs_moments

    @property
    def reads_text(self) -> bool:
        """Whether a run of this recipe has a calibration text: for its stages, or for its end-to-end pass."""
        return self.data is not None or self.distillation is not None
