"""A comparison in plain words: one sentence that says which side is better and how sure one can be, or that this text cannot tell."""

import math
from datetime import UTC, datetime
from typing import Any

from salq import __version__
from salq.evaluation.paired import FEWEST_WINDOWS, RESAMPLES, Interval
from salq.runs.comparison import Comparison, names
from salq.runs.log import finite
from salq.runs.subjects import Subject, measured_on

NATS = "nats/token"
METRICS = (
    "perplexity", "perplexity_se", "kl", "kl_se", "kl_median", "kl_p99", "top1_agreement", "nonfinite_tokens", "bits_per_weight",
    "model_bits_per_weight", "size_mb", "model_size_mb", "codes_mb", "scales_mb", "zero_points_mb", "adapters_mb", "seconds", "peak_memory_gb",
    "n_blocks", "of_blocks", "seed", "device",
)  # fmt: skip


def document(comparison: Comparison) -> dict[str, Any]:
    """The comparison as plain values: the JSON export, and all that the page, the command line and the report show."""
    differences = None if comparison.differences is None else {name: one.to_json() for name, one in comparison.differences.items()}
    found = comparison.blocks
    blocks = found and {"a": found.a, "b": found.b, "lower_in_b": found.lower_in_b, "lower_in_a": found.lower_in_a}
    value: dict[str, Any] = finite({
        "format": 1, "salq": __version__, "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"), "verdict": sentence(comparison),
        "remarks": remarks(comparison), "conditions": comparison.conditions, "a": _told(comparison.a), "b": _told(comparison.b),
        "mean_differences": dict(comparison.means), "differences": differences, "blocks": blocks,
        "noise_floor": None if comparison.floor is None else comparison.floor.to_json(), "trade_off": list(comparison.points),
        "conversation": comparison.conversation,
    })  # fmt: skip
    return value


def _told(side: Subject) -> dict[str, Any]:
    about = {"title": side.title, "run": side.run or None, "recipe": side.recipe, "tag": side.tag, "request": dict(side.asked)}
    return {**about, "versions": dict(side.versions), **{name: side.metrics.get(name) for name in METRICS}}


def sentence(comparison: Comparison) -> str:
    """The verdict. It never says more than the interval does."""
    if not all(math.isfinite(value) for value in comparison.means.values()):
        return _not_finite(comparison)
    if comparison.differences is None:
        return _too_few(comparison)
    if comparison.a.is_original or comparison.b.is_original:
        return _against_original(comparison)
    return _between(comparison)


def remarks(comparison: Comparison) -> list[str]:
    """What a careful reader must know beside the verdict: where it was measured, the noise floor, blocks left out, the reference."""
    paired = f"; intervals are paired over windows, {RESAMPLES:,} resamples" if comparison.differences is not None else ""
    told = [f"Measured on {measured_on(comparison.a.metrics)} ({comparison.a.metrics.get('tokens')} predicted tokens){paired}."]
    if comparison.differences is not None:
        nll, agrees = comparison.differences["nll"], comparison.differences["agrees"]
        told.append(f"B minus A: log-loss {around(nll)} {NATS}, first choices shared with the original {around(agrees, percent=True)}.")
    if not (comparison.a.is_original or comparison.b.is_original):
        told.append("One run of each: what another seed would change is not in the interval; `salq experiment` averages over seeds.")
    if comparison.floor is not None:
        told.append(comparison.floor.words)
        told += [f"The KL of {side.title} is no more than that." for side in (comparison.a, comparison.b) if _within(side, comparison.floor.kl)]
    for side in (comparison.a, comparison.b):
        done, of = side.metrics.get("n_blocks"), side.metrics.get("of_blocks")
        if done and of and done < of:
            told.append(f"In {side.title} only the first {done} of {of} blocks are quantized.")
    if comparison.a.metrics.get("reference") not in {None, "", "full precision"}:
        told.append(f"The original here is a {comparison.a.metrics['reference']}.")
    return told


def _within(side: Subject, floor: float) -> bool:
    """Whether a quantized side is as near to the original as the other precision is."""
    kl = side.metrics.get("kl")
    return not side.is_original and isinstance(kl, int | float) and kl <= floor


def _between(comparison: Comparison) -> str:
    assert comparison.differences is not None
    a, b = names(comparison)
    kl, nll = comparison.differences["kl"], comparison.differences["nll"]
    if kl.value == kl.low == kl.high == 0 and nll.value == 0:
        return f"No difference: {a} and {b} predict the same in every one of {comparison.windows} windows."
    if not kl.is_decided:
        return (
            f"No difference that this text can show: the KL of {b} minus that of {a} is {plain(kl)} {NATS}, with a 95 % interval of {ends(kl)} "
            f"that holds 0 ({comparison.windows} windows)."
        )
    winner, loser = (b, a) if kl.value < 0 else (a, b)
    lowered = Interval(abs(kl.value), *sorted((abs(kl.low), abs(kl.high))))
    return (
        f"{winner} lowers KL by {plain(lowered)} {NATS}, 95 % interval {ends(lowered)}, over {loser}{_blocks(comparison, kl)}{_but(winner, kl, nll)}."
    )


def _blocks(comparison: Comparison, kl: Interval) -> str:
    blocks = comparison.blocks
    if blocks is None:
        return ""
    return f"; better in {blocks.lower_in_b if kl.value < 0 else blocks.lower_in_a} of {len(blocks.a)} blocks"


def _but(winner: str, kl: Interval, nll: Interval) -> str:
    """KL and log-loss may disagree: nearer to the original is not always better at the text."""
    return f"; yet the log-loss of {winner} on this text is higher" if nll.is_decided and nll.value * kl.value < 0 else ""


def _against_original(comparison: Comparison) -> str:
    assert comparison.differences is not None
    a, b = names(comparison)
    sign = 1 if comparison.a.is_original else -1
    run = b if comparison.a.is_original else a
    kl, nll = (_times(sign, comparison.differences[name]) for name in ("kl", "nll"))
    if not nll.is_decided:
        loss = f"no difference in log-loss that this text can show ({plain(nll)} {NATS}, 95 % interval {ends(nll)})"
    else:
        word = "raises" if nll.value > 0 else "lowers"
        size = Interval(abs(nll.value), *sorted((abs(nll.low), abs(nll.high))))
        loss = f"{word} log-loss by {plain(size)} {NATS}, 95 % interval {ends(size)}"
    return f"{run} is {plain(kl)} {NATS} of KL from the original, 95 % interval {ends(kl)}; {loss}."


def _too_few(comparison: Comparison) -> str:
    a, b = names(comparison)
    count = f"{comparison.windows} windows are" if comparison.windows != 1 else "1 window is"
    return (
        f"{count} too few for a verdict: the KL of {b} minus that of {a} is {comparison.means['kl']:+.3g} {NATS} on them; "
        f"measure on at least {FEWEST_WINDOWS} windows."
    )


def _not_finite(comparison: Comparison) -> str:
    broken = [one.title for one in (comparison.a, comparison.b) if one.metrics.get("nonfinite_tokens")]
    return f"No verdict: {' and '.join(broken) or 'a run'} gives losses that are not finite on this text, so that differences have no mean."


def _times(sign: int, interval: Interval) -> Interval:
    return Interval(sign * interval.value, *sorted((sign * interval.low, sign * interval.high)))


def plain(interval: Interval) -> str:
    """The estimate with as many decimals as its interval has to say."""
    return f"{interval.value:.{_decimals(interval)}f}"


def ends(interval: Interval) -> str:
    """The two ends, with the same decimals."""
    decimals = _decimals(interval)
    return f"{interval.low:.{decimals}f} to {interval.high:.{decimals}f}"


def around(interval: Interval, *, percent: bool = False) -> str:
    """Estimate and interval, signed."""
    if percent:
        return f"{100 * interval.value:+.2f} points [{100 * interval.low:+.2f}, {100 * interval.high:+.2f}]"
    decimals = _decimals(interval)
    return f"{interval.value:+.{decimals}f} [{interval.low:+.{decimals}f}, {interval.high:+.{decimals}f}]"


def _decimals(interval: Interval) -> int:
    """Two significant digits of the interval's width (of the value, when it has no width), between 1 and 7 decimals."""
    width = (interval.high - interval.low) or abs(interval.value)
    return min(max(1 - math.floor(math.log10(width)), 1), 7) if width > 0 else 2
