"""Everything that can go wrong because of what a person asked for, or of where they asked it.

Every message is one clear sentence: where, what was got, what is allowed, what to do. The page shows it as it is; the command
line prints it and exits with code 2. Anything that is not a SalqError is a bug in salq and keeps its traceback.
"""

from salq.core.redact import redacted


class SalqError(Exception):
    """A problem that the user can act on; `str(error)` is the one sentence that they read, without any secret that a library put into it."""

    def __init__(self, *words: object) -> None:
        """Take the sentence; tokens and passwords in it are hidden."""
        super().__init__(*(redacted(word) if isinstance(word, str) else word for word in words))


class UnknownNameError(SalqError):
    """A model, recipe, preset, run or field that does not exist; the message lists what does."""

    @classmethod
    def of(cls, kind: str, got: str, allowed: list[str] | tuple[str, ...], fix: str = "") -> "UnknownNameError":
        """The usual sentence: `kind` 'got' is not known; use one of `allowed`."""
        listed = ", ".join(allowed) if allowed else "(none yet)"
        tail = f" {fix}" if fix else ""
        return cls(f"{kind} {got!r} is not known; choose one of: {listed}.{tail}")


class ConfigError(SalqError):
    """A value outside what is allowed (bits, rank, samples, an unknown `--set` key, ...)."""


class ShapeError(SalqError):
    """A group size, rank or saliency map that does not fit a matrix; the message names the matrix."""


class ModelError(SalqError):
    """A model that cannot be had or read: not a LLaMA, gated, broken file, no safetensors, no network."""


class TextError(SalqError):
    """Calibration or evaluation text that is empty, not UTF-8, or shorter than one window."""


class ResourceError(SalqError):
    """Too little memory or disk, on this machine or this GPU, for what was asked."""


class StoreError(SalqError):
    """A run that cannot be written, read, resumed or deleted."""


class FormatError(SalqError):
    """A packed file that is cut short, altered, or not one at all; nothing of it runs."""


class NewerFormatError(FormatError):
    """A packed file of a newer salq: whole, but not to be read here, and not to be replaced."""


class Diverged(SalqError):  # noqa: N818 - named after the event that it ends a run with
    """A loss that is no longer finite; finished blocks are kept."""

    def __init__(self, block: int, stage: str, step: int, last_finite: float | None) -> None:
        """Say where it happened and the last finite loss (None: the first step already failed)."""
        self.block, self.stage, self.step, self.last_finite = block, stage, step, last_finite
        last = "from the first step" if last_finite is None else f"after a last finite loss of {last_finite:.4g}"
        super().__init__(
            f"Calibration diverged in block {block}, stage {stage!r}, step {step} ({last}); "
            "lower the learning rates (for example --set lr=1e-4) and resume: finished blocks are kept."
        )
