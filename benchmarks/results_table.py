"""Write README's table of results from the runs kept in assets/results/ (`make assets` ends with it), so that no figure is typed by hand.

python benchmarks/results_table.py
"""

import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from salq.models.catalogue import DEFAULT_MODEL  # noqa: E402 - the checkout is put on the path first
from salq.runs.kept import KeptRun, authors_name, kept_runs  # noqa: E402

README = ROOT / "README.md"
START, END = "<!-- results -->", "<!-- /results -->"
HEADER = (
    "| recipe | grid | bits per weight | MB, matrices | MB, model | perplexity | KL, nats/token | same first choice | calibration | peak memory |\n"
    "| --- | --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
)


def table(runs: list[KeptRun]) -> str:
    """The table, the conditions under which its figures were measured, and the command of each row."""
    first = runs[0].metrics
    megabytes, perplexity = 2 * first["parameters"] / 1e6, _perplexity(first, "perplexity_original")
    rows = [HEADER, f"| original | 16 bits | 16 | - | {megabytes:.0f} | {perplexity} | 0 | 100 % | - | - |"]
    rows += [_row(run) for run in runs]
    commands = "\n".join(run.command for run in runs)
    return (
        f"SmolLM2-135M-Instruct, reference: {first['reference_note'] or 'the published weights'}; preset `quick`;\n"
        f"perplexity ± standard error and KL(original ‖ quantized) on {first['windows']} windows of {first['window']} tokens of the text\n"
        f"*{first['text']}*, which calibration did not see; calibrated on the bundled text that the model wrote itself; 2 CPU cores.\n"
        "Sizes count scales, zero points and adapters, in the packed format. Time is the blocks' and the end-to-end pass's, where a recipe has one;\n"
        "SAPR's saliency map was there already, and takes about a minute. GPTQ, salq and salq-full ran on another machine than the\n"
        "rest, and salq at 3 and 4 bits later than the others there, with code that is 3 % faster: times of different groups do not\n"
        "compare. Peak memory is that of the run's process, evaluation included.\n\n"
        + "\n".join(rows)
        + "\n\n<details><summary>The command that made each row</summary>\n\n```text\n"
        + commands
        + "\n```\n\n</details>"
    )


def readme_with(text: str, body: str) -> str:
    """`text` with what stands between the markers replaced."""
    return re.sub(rf"{START}.*?{END}", lambda _: f"{START}\n{body}\n{END}", text, flags=re.DOTALL)


def _row(run: KeptRun) -> str:
    one = run.metrics
    size = f"{one['bits_per_weight']:.2f} | {one['size_mb']:.1f} | {one['model_size_mb']:.1f}"
    quality = f"{_perplexity(one, 'perplexity')} | {one['kl']:.3g} | {100 * one['top1_agreement']:.1f} %"
    cost = f"{_duration(one['seconds'])} | {one['peak_memory_gb']:.1f} GB"
    return f"| {authors_name(one['recipe'])} | {one['tag']} | {size} | {quality} | {cost} |"


def _perplexity(one: dict[str, float], name: str) -> str:
    return f"{one[name]:.4g} ± {one[f'{name}_se']:.2g}" if one[name] < 1e4 else f"{one[name]:.1e}"


def _duration(seconds: float) -> str:
    return f"{seconds:.0f} s" if seconds < 120 else f"{seconds / 60:.1f} min"


def main() -> int:
    """Rewrite the table in README.md."""
    README.write_text(readme_with(README.read_text(encoding="utf-8"), table(kept_runs(DEFAULT_MODEL))), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
