"""Numbers, tables and JSON as the command line prints them."""

import json
import math

import pytest

from salq.cli.report import STABLE, duration, emit, number, result_facts, table, with_stable_keys


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (None, "-"), (0, "0"), (22.613, "22.61"), (559012.3, "5.590e+05"), (75.6, "75.60"), (0.4123456, "0.4123"), (1234.5678, "1,235"), (8, "8.000"),
        (0.000123, "1.230e-04"), (math.nan, "not finite"), (math.inf, "not finite"), (True, "True"), ("x", "x"), (-3.14159, "-3.142"),
    ],
)  # fmt: skip
def test_number(value: object, shown: str) -> None:
    assert number(value) == shown


@pytest.mark.parametrize(
    ("seconds", "shown"), [(None, "-"), (-5, "0.0 s"), (0.04, "0.0 s"), (9.94, "9.9 s"), (59.4, "59 s"), (125, "2 min 5 s"), (7320, "2 h 2 min")]
)
def test_duration(seconds: float | None, shown: str) -> None:
    assert duration(seconds) == shown


def test_table_aligns_numbers_to_the_right() -> None:
    assert table(["name", "size"], [["a", "1.5"], ["long", "-"]]).splitlines() == ["name  size", "----  ----", "a      1.5", "long     -"]
    assert table(["name"], []) == "name\n----"


def test_json_has_the_stable_keys_and_no_nan(capsys: pytest.CaptureFixture[str]) -> None:
    emit(with_stable_keys({"perplexity": math.inf, "per_window": {"nll": [1.0]}, "extra": [math.nan]}))
    found = json.loads(capsys.readouterr().out)
    assert list(found)[: len(STABLE)] == list(STABLE)
    assert found["perplexity"] is None
    assert found["extra"] == [None]
    assert "per_window" not in found


def test_results_say_what_they_were_measured_on() -> None:
    shown = result_facts(
        {"perplexity": 30.0, "perplexity_original": 22.6, "text": "bundled", "windows": 8, "window": 512, "reference": "full precision"}
    )
    assert "30.00   (full precision 22.60; bundled, 8 windows of 512 tokens)" in shown
