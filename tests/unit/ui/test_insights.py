"""What Learn says is what the kept numbers say."""

import re

import pytest

from salq.runs.kept import KeptRun, WeightGroup
from salq.ui.insights import bars, conditions, group_sentence, headline, number_lines


def run(recipe: str, bits: int, perplexity: float, group: int = 64) -> KeptRun:
    metrics = {
        "recipe": recipe, "bits": bits, "group_size": group, "tag": f"w{bits}g{group}", "perplexity": perplexity, "perplexity_original": 22.6,
        "model_size_mb": 100.4, "model": "smollm2-135m", "windows": 8, "window": 512, "text": "bundled", "reference": "full precision",
    }  # fmt: skip
    return KeptRun(f"{recipe} w{bits}g{group}", "command", metrics)


RUNS = [run("rtn", 3, 75.6), run("rtn", 3, 57.4, 32), run("apiq", 3, 42.1), run("sapr", 3, 40.3), run("rtn", 2, 5.6e5)]


def test_the_headline_compares_like_with_like() -> None:
    told = headline([RUNS[0], *RUNS[2:]])
    assert told is not None
    sentence, number = told
    assert sentence.startswith("SmolLM2 135M Instruct: rounding every weight to 3 bits raises perplexity from 22.6 to 75.6")
    assert "SAPR brings it back to 40.3" in sentence
    assert number == "40.3"


def test_the_headline_without_calibration_or_without_runs() -> None:
    told = headline(RUNS[:1])
    assert told is not None
    assert told[0].endswith("to 75.6.")
    assert headline([]) is None
    assert headline([run("rtn", 4, 30.0)]) is None


def test_bars_are_in_order_and_say_their_numbers() -> None:
    html = bars(RUNS)
    numbers = re.findall(r"<b>([^<]+)</b>", html)
    assert numbers == ["22.6", "57.4", "75.6", "40.3", "42.1", "560,000"]
    widths = [float(width) for width in re.findall(r"width:([\d.]+)%", html)]
    assert widths[0] == 0.0
    assert max(widths) == widths[-1]
    assert bars([]) == ""


def test_names_in_kept_files_are_escaped() -> None:
    assert "<script>" not in bars([run("<script>", 3, 30.0)])


def test_conditions_name_the_text_and_the_windows() -> None:
    assert "8 windows of 512 tokens of the text bundled" in conditions(RUNS)
    assert conditions([]) == ""


def test_number_lines_draw_every_weight_and_level() -> None:
    group = WeightGroup(
        0, "mlp.down_proj", 5, 0, [-0.2, -0.05, 0.0, 0.12],
        {"2": {"scale": 0.1, "zero_point": 2.0}, "3": {"scale": 0.05, "zero_point": 4.0}},
    )  # fmt: skip
    svg = number_lines(group)
    assert svg.count('class="weight"') == 2 * 4
    assert svg.count('class="level"') == 4 + 8
    xs = [float(x) for x in re.findall(r'c?x1?="([\d.-]+)"', svg)]
    assert min(xs) >= 0
    assert max(xs) <= 860
    # moves at 2 bits: 0, 0.05, 0, 0.02 -> mean 0.0175
    assert "0.018 at 2 bits" in group_sentence(group) or "0.017 at 2 bits" in group_sentence(group)


def test_a_constant_group_still_draws() -> None:
    group = WeightGroup(0, "m", 0, 0, [0.0, 0.0], {"2": {"scale": 0.0, "zero_point": 0.0}})
    assert "nan" not in number_lines(group)
    assert pytest.approx(0.0) == group.levels(2)[3]
