"""Which rates, batches and samples suit the end-to-end pass: the blocks once, then one pass after the other from the same blocks.

    python benchmarks/rates_of_distillation.py --recipe salq --bits 2 --text FILE       about 25 minutes on two cores; adds to its result file

The first 80 % of the text calibrate, the last 20 % measure. An experiment would calibrate the blocks anew for every side.
"""

import argparse
import sys
import time
from pathlib import Path
from typing import Any

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import numpy as np  # noqa: E402 - the checkout is put on the path first

from benchmarks.output import tell  # noqa: E402
from salq import recipes  # noqa: E402
from salq.calibration.distillation import distill  # noqa: E402
from salq.calibration.engine import calibrate  # noqa: E402
from salq.calibration.store import MemoryBlocks  # noqa: E402
from salq.core.device import choose_device, keep_freed_memory  # noqa: E402
from salq.core.drain import drain  # noqa: E402
from salq.core.files import last_part, read_json  # noqa: E402
from salq.data.sources import load_text  # noqa: E402
from salq.data.windows import evaluation_windows, sample_windows  # noqa: E402
from salq.evaluation.paired import mean_difference  # noqa: E402
from salq.evaluation.scores import Scores, score  # noqa: E402
from salq.kernels.assemble import quantized_copy  # noqa: E402
from salq.models.catalogue import DEFAULT_MODEL  # noqa: E402
from salq.models.llama import load_model  # noqa: E402
from salq.quant.spec import QuantSpec  # noqa: E402
from salq.runs.environment import environment  # noqa: E402

RESULT = ROOT / "benchmarks" / "results" / "rates-of-distillation.json"
WINDOWS, WINDOW = 8, 512


def variants(quick: dict[str, Any], spec: QuantSpec) -> dict[str, dict[str, Any]]:
    """{name: what it changes in the preset's pass}; the first one changes nothing."""

    def times(factor: float) -> dict[str, float]:
        return {name: quick[name] * factor for name in ("lr_scale", "lr_adapter")}

    longer = {"steps": 3 * quick["steps"] // 2, "n_samples": 3 * quick["n_samples"] // 2}
    return {
        "preset": {},
        "half the rates": times(0.5),
        **({f"the rates of {quick['lr_bits']} bits": {"lr_bits": None}} if quick["lr_bits"] != spec.bits else {}),
        "twice the rates": times(2.0),
        "twice the batch, half the steps": {"batch_size": 2 * quick["batch_size"], "steps": quick["steps"] // 2},
        "half again the steps": longer,
        "half again the steps, half the rates": longer | times(0.5),
        "new samples": {"n_samples": 4 * quick["n_samples"]},
        "a quarter of the samples": {"n_samples": quick["n_samples"] // 4},
    }


def main() -> None:
    """Measure one recipe at one width."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--recipe", default="salq")
    parser.add_argument("--bits", type=int, default=2)
    parser.add_argument("--text", required=True)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", default="", metavar="NAME;NAME", help="these passes beside the preset's; without it all of them")
    parser.add_argument("--out", type=Path, default=RESULT)
    args = parser.parse_args()
    keep_freed_memory()  # as the process of a run does
    model, recipe = load_model(args.model, device="cpu"), recipes.get(args.recipe, preset="quick", bits=args.bits, group_size=64)
    text, held_out = load_text(args.text, "calibration", model), load_text(args.text, "evaluation", model, calibrated_on=[args.text])
    windows, store = evaluation_windows(held_out, model.tokenizer, WINDOWS, WINDOW), MemoryBlocks()
    assert recipe.data is not None
    assert recipe.distillation is not None
    known = drain(calibrate(model, sample_windows(text, model.tokenizer, recipe.data.n_samples, recipe.data.seq_len, args.seed), recipe, store,
                            seed=args.seed))  # fmt: skip
    blocks = {index: store.load(index) for index in range(model.n_blocks)}

    def measured(found: Any) -> Scores:
        return drain(score(model, quantized_copy(model, found), windows, text=held_out.name))

    before, first, rows = measured(blocks), None, []
    passes = variants(recipe.distillation.model_dump(), recipe.spec)
    wanted = {"preset", *args.only.split(";")} if args.only else set(passes)
    for name, changed in ((name, changed) for name, changed in passes.items() if name in wanted):
        config, started = recipe.distillation.model_copy(update=changed), time.monotonic()
        samples = sample_windows(text, model.tokenizer, config.n_samples, config.seq_len, args.seed)
        result = drain(distill(model, blocks, samples, config, known=known, seed=args.seed))
        seconds, scores = time.monotonic() - started, measured(result)
        first = first or scores
        difference = mean_difference(*(np.array(one) for one in (first.per_window["kl"], scores.per_window["kl"], first.per_window["tokens"])))
        rows.append({"pass": name, **changed, "seconds": round(seconds, 1), "kl": scores.kl, "perplexity": scores.perplexity,
                     "kl_minus_preset": difference.to_json()})  # fmt: skip
        print(rows[-1], flush=True)
    value = {
        "command": f"python benchmarks/rates_of_distillation.py --recipe {args.recipe} --bits {args.bits} --text {last_part(args.text)}"
        + (f" --seed {args.seed}" if args.seed else "") + (f" --only '{args.only}'" if args.only else ""),
        "model": args.model, "reference": model.reference_label, "recipe": args.recipe, "bits": args.bits, "group_size": 64, "seed": args.seed,
        "text": held_out.name, "windows": WINDOWS, "window": WINDOW, "perplexity_original": before.original_perplexity,
        "preset": recipe.distillation.model_dump(), "kl_after_blocks": before.kl, "perplexity_after_blocks": before.perplexity, "passes": rows,
        "environment": environment(choose_device("cpu")),
    }  # fmt: skip
    known_results = read_json(args.out) if args.out.exists() else {}
    tell({**known_results, f"{args.recipe}-w{args.bits}g64-seed{args.seed}": value}, args.out)


if __name__ == "__main__":
    main()
