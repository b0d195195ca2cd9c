"""Write the bundled calibration text: the default model's own words (LLM-QAT, arXiv 2305.17888), and record how it was made.

OMP_NUM_THREADS=2 python benchmarks/write_calibration_text.py --model smollm2-135m --tokens 60000 --seed 0
"""

import argparse
import datetime
import os
import platform
import shlex
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

import torch
import transformers

from salq.data.bundled import FOLDER, record
from salq.data.self_written import Writing, write_text
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL
from salq.models.llama import load_model


def main() -> None:
    """Write `assets/text/calibration.txt` and its entry in the manifest."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", default=DEFAULT_MODEL, help="catalogue key, hub id or folder")
    parser.add_argument("--tokens", type=int, default=60_000, help="least number of tokens to write")
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()

    started, writing = time.perf_counter(), Writing()
    model = load_model(arguments.model, device="cpu")
    text = write_text(model, arguments.tokens, seed=arguments.seed, writing=writing)
    (FOLDER / "calibration.txt").write_text(text, encoding="utf-8")
    record(
        "calibration",
        title="bundled calibration text (written by SmolLM2 135M itself)",
        licence=CATALOGUE[DEFAULT_MODEL].licence,
        made=f"written by {model.name} itself ({model.reference_label}), seed {arguments.seed}; data-free, after LLM-QAT (arXiv 2305.17888)",
        notice="invented by a small language model: names, numbers and claims in it are not facts",
        command=f"OMP_NUM_THREADS={torch.get_num_threads()} python {shlex.join(sys.argv)}",
        date=datetime.datetime.now(tz=datetime.UTC).date().isoformat(),
        model={"name": model.name, "note": model.source.note, "fingerprint": model.source.fingerprint},
        writing=vars(writing),
        tokens=len(model.tokenizer(text, add_special_tokens=False, verbose=False).input_ids),
        versions={"torch": torch.__version__, "transformers": transformers.__version__, "python": platform.python_version()},
    )
    print(f"{len(text)} characters in {time.perf_counter() - started:.0f} s on {os.cpu_count()} cores -> {FOLDER / 'calibration.txt'}")


if __name__ == "__main__":
    main()
