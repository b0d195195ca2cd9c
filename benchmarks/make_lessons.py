"""Measures what the lessons of Learn draw on real weights and keeps it under assets/results. `make assets` runs it after make_assets.py.

It uses the saliency map and the calibrated run that make_assets.py made, under SALQ_HOME; about 3 minutes on one core. What is kept of a run that
make_assets.py had no reason to make again stays.
"""

import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from benchmarks.make_assets import (  # noqa: E402 - the checkout is put on the path first
    CHAT_PROMPT,
    CHAT_SIDE,
    GROUP_ROW,
    GROUP_START,
    MATRIX,
    TEXT,
    calibrated,
    calibration_requests,
    explore_request,
)
from salq.cli.follow import open_store  # noqa: E402
from salq.data.sources import load_text  # noqa: E402
from salq.data.windows import evaluation_windows, sample_windows  # noqa: E402
from salq.lessons.material import keep_material, kept_material  # noqa: E402
from salq.lessons.matrix import GROUP, learned_of  # noqa: E402
from salq.lessons.measure import WAY, Wanted, measure  # noqa: E402
from salq.models.catalogue import CATALOGUE, DEFAULT_MODEL  # noqa: E402
from salq.models.llama import load_model, read_weight  # noqa: E402
from salq.saliency.maps import find, saliency_key  # noqa: E402

PATCH_MATRIX = "self_attn.q_proj"
"""Where saliency is about as concentrated as in the whole model; in MATRIX it is less so."""
SAMPLES, LENGTH = 8, 256
WINDOWS, WINDOW = 8, 512
"""Evaluation as in the kept runs, so that the perplexities can be compared."""


def main() -> int:
    """Measure and keep, if there is a run to measure."""
    store, asked = open_store(), explore_request()
    recipe, bits, group = CHAT_SIDE
    request = next(one for one in calibration_requests() if (one.method, one.spec.bits, one.spec.group_size) == CHAT_SIDE)
    found = [info for info in store.list() if info.status == "done" and info.request is not None and info.request.key() == request.key()]
    if not found:
        assert kept_material(DEFAULT_MODEL) is not None, "make_assets.py makes this run unless it is kept, and then this is kept, too"
        return 0
    model = load_model(DEFAULT_MODEL, device="cpu")
    text = load_text(TEXT, "calibration", model)
    key = saliency_key(
        fingerprint=model.source.fingerprint, text_sha256=text.sha256, n_samples=asked.n_samples, seq_len=asked.seq_len, seed=asked.seed
    )
    saliency = find(key)
    assert saliency is not None, "make_assets.py computes this map first"
    blocks = store.blocks(found[0].id)
    evaluation = load_text(TEXT, "evaluation", model)
    wanted = Wanted(
        place=(*MATRIX, GROUP_ROW, GROUP_START),
        patch=PATCH_MATRIX,
        prompt=CHAT_PROMPT,
        title=CATALOGUE[DEFAULT_MODEL].title,
        note=(
            f"Outputs on {SAMPLES} windows of {LENGTH} tokens, the error's way on {WAY[0]} of {WAY[1]}, perplexities on {WINDOWS} of {WINDOW}, "
            "of the bundled texts."
        ),
    )
    material = measure(
        model,
        saliency,
        sample_windows(text, model.tokenizer, SAMPLES, LENGTH, 0),
        evaluation_windows(evaluation, model.tokenizer, WINDOWS, WINDOW),
        wanted,
        {f"{recipe} w{bits}g{group}": {index: blocks.load(index) for index in range(model.n_blocks)}},
        tell=lambda part: print(part, file=sys.stderr, flush=True),
    )
    line = read_weight(model.source, MATRIX[0], MATRIX[1])[GROUP_ROW, GROUP_START : GROUP_START + GROUP]
    rows = {name: store.result(run_id).open(MATRIX[0]).row(MATRIX[1], GROUP_ROW) for name, run_id in calibrated(store).items()}
    learned = tuple(learned_of(line, row, GROUP_START // GROUP, name) for name, row in rows.items())
    keep_material(DEFAULT_MODEL, material.model_copy(update={"learned": learned}))
    return 0


if __name__ == "__main__":
    sys.exit(main())
