"""A method as a value: quantizer x trainable parameters x objective x regularizer x data.

The engine reads a recipe and never asks for its name. Recipes are JSON; unknown keys are refused.
"""

from typing import Annotated, Literal

from pydantic import BaseModel, ConfigDict, Field, model_validator

from salq.calibration.distillation import Distillation
from salq.calibration.objectives import OutputMSE
from salq.calibration.regularizers import WeightPreservation
from salq.quant.adapter import LoRA
from salq.quant.clipping import LWC, MinMax
from salq.quant.spec import QuantSpec

Group = Literal["clipping", "adapter"]
Quantizer = Annotated[LWC | MinMax, Field(discriminator="kind")]


class Fit(BaseModel):
    """One stage of a block's calibration: what is minimised, over what, for how long."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    name: str = Field(default="output", pattern=r"^[a-z_]{1,20}$", description="Name in events and curves; SAPR's are weight, mixed and output.")
    epochs: int = Field(default=20, ge=0, le=1000, description="Passes over the calibration samples; 0 skips the stage.")
    objective: OutputMSE | None = Field(default=OutputMSE(), description="Term on the block's output; none leaves only the regularizer.")
    regularizer: WeightPreservation | None = Field(default=None, description="Term on the weights.")
    batch_size: int = Field(default=1, ge=1, le=1024, description="Samples per optimizer step.")
    lr_clipping: float = Field(default=5e-3, ge=0, le=10, description="Learning rate of the clipping logits; 0 leaves them alone.")
    lr_adapter: float = Field(default=5e-4, ge=0, le=10, description="Learning rate of the adapters; 0 leaves them alone.")
    weight_decay: float = Field(default=0.1, ge=0, le=10, description="AdamW's decoupled weight decay, for clipping and adapters.")
    schedule: Literal["constant", "cosine"] = Field(default="constant", description="Learning rate over the stage's steps.")

    @model_validator(mode="after")
    def _has_a_term(self) -> "Fit":
        if self.objective is None and self.regularizer is None:
            raise ValueError(f"stage {self.name!r} minimises nothing: give it an objective, a regularizer or both")
        return self


class CalibrationData(BaseModel):
    """The text windows that calibration sees."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(default=128, ge=1, le=65536, description="Calibration samples (text windows).")
    seq_len: int = Field(default=2048, ge=8, le=8192, description="Tokens per calibration sample.")


class SaliencyData(BaseModel):
    """The text windows that saliency is computed on."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    n_samples: int = Field(default=100, ge=1, le=65536, description="Samples for the saliency map.")
    seq_len: int = Field(default=512, ge=8, le=8192, description="Tokens per saliency sample.")


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

    @model_validator(mode="after")
    def _is_consistent(self) -> "Recipe":
        if self.stages and self.data is None:
            raise ValueError("a recipe with stages needs calibration data (data.n_samples, data.seq_len)")
        if self.needs_saliency and self.saliency is None:
            raise ValueError("a regularizer weighted by saliency needs saliency data (saliency.n_samples, saliency.seq_len)")
        if self.stages and isinstance(self.quantizer, MinMax) and self.adapter is None:
            raise ValueError("the stages have nothing to learn: use the lwc quantizer, an adapter or both")
        for stage in self.stages:
            if stage.epochs and stage.objective is None and stage.regularizer is not None and isinstance(self.quantizer, MinMax):
                before = stage.regularizer.where == "before_lora"
                if before:
                    raise ValueError(f"stage {stage.name!r} compares weights before the adapter, which min_max cannot change; use after_lora or lwc")
        return self

    @property
    def rank(self) -> int:
        """Rank of the adapters, 0 without."""
        return 0 if self.adapter is None else self.adapter.rank

    @property
    def active_stages(self) -> tuple[Fit, ...]:
        """The stages that do something."""
        return tuple(stage for stage in self.stages if stage.epochs > 0)

    @property
    def needs_saliency(self) -> bool:
        """Whether an active stage weights its regularizer by saliency."""
        return any(stage.regularizer is not None and stage.regularizer.weighted and stage.regularizer.strength > 0 for stage in self.active_stages)

    @property
    def needs_data(self) -> bool:
        """Whether the stages of the blocks learn from text."""
        return bool(self.active_stages)

    @property
    def reads_text(self) -> bool:
        """Whether a run of this recipe has a calibration text: for its stages, or for its end-to-end pass."""
        return self.data is not None or self.distillation is not None
