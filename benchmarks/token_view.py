"""What the token view costs: scoring 1,024 tokens against two plain forward passes, and putting every block back for one token.

    python benchmarks/token_view.py [--tokens N] [--out FILE]        about two minutes on two free cores, default model, rounded to 3 bits

A plain forward pass gives all logits of the text and looks at none of them. Passes and scorings alternate; medians are compared.
"""

import argparse
import statistics
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

import torch  # noqa: E402 - the checkout is put on the path first

from benchmarks.output import tell  # noqa: E402
from salq.core.device import choose_device, keep_freed_memory  # noqa: E402
from salq.core.drain import drain  # noqa: E402
from salq.data.sources import load_text  # noqa: E402
from salq.data.windows import evaluation_windows  # noqa: E402
from salq.evaluation.restore import break_down  # noqa: E402
from salq.evaluation.tokens import score_tokens, totals  # noqa: E402
from salq.kernels.assemble import quantized_copy, rtn_blocks  # noqa: E402
from salq.models.catalogue import DEFAULT_MODEL  # noqa: E402
from salq.models.llama import load_model  # noqa: E402
from salq.quant.spec import QuantSpec  # noqa: E402
from salq.runs.environment import environment  # noqa: E402

REPEATS = 5
WHERE_TOKENS = 128


def seconds(work) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


@torch.no_grad()
def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--model", default=DEFAULT_MODEL)
    parser.add_argument("--tokens", type=int, default=1024)
    parser.add_argument("--out", type=Path)
    args = parser.parse_args()
    keep_freed_memory()  # as the process that scores for the page does
    model = load_model(args.model, device="cpu")
    quantized = quantized_copy(model, rtn_blocks(model, QuantSpec(bits=3, group_size=64)))
    window = evaluation_windows(load_text("bundled", "evaluation"), model.tokenizer, 1, args.tokens)
    ids = window[0].tolist()

    def plain() -> None:
        for one in (model, quantized):
            one.model(input_ids=window, use_cache=False)

    def scoring() -> None:
        score_tokens(model, quantized, ids)

    plain()
    scoring()
    forwards, scorings = zip(*((seconds(plain), seconds(scoring)) for _ in range(REPEATS)), strict=True)
    where = seconds(lambda: drain(break_down(model, quantized, ids, WHERE_TOKENS)))
    value = {
        "bench": "token_view", "model": args.model, "grid": "w3g64", "tokens": len(ids), "two_forwards_s": statistics.median(forwards),
        "scoring_s": statistics.median(scorings), "ratio": statistics.median(b / a for a, b in zip(forwards, scorings, strict=True)),
        "where_tokens": WHERE_TOKENS, "where_s": where, "kl": totals(score_tokens(model, quantized, ids)).kl,
        "environment": environment(choose_device("cpu")),
    }  # fmt: skip
    tell(value, args.out)


if __name__ == "__main__":
    main()
