"""The words and the document: every number comes from a kept result, every sentence is told, and the five questions are answered."""

import json
import re
from pathlib import Path

import pytest

from salq.cli.program import main
from salq.core.errors import StoreError
from salq.lessons.document import document, ruler
from salq.lessons.facts import facts, measured, perplexity, placeholders
from salq.lessons.material import kept_material, material_path
from salq.lessons.words import LESSONS
from salq.models.catalogue import DEFAULT_MODEL
from salq.runs.kept import kept_runs

QUESTIONS = ("Why groups?", "Why clipping?", "Why saliency?", "Why adapters?", "Why may 3 bits be fine where 2 are not?")


@pytest.mark.parametrize("lesson", LESSONS, ids=[lesson.key for lesson in LESSONS])
def test_every_sentence_with_numbers_is_told(lesson: object) -> None:
    known = facts(DEFAULT_MODEL)
    assert measured(lesson, known) == [text.format(**known) for text in lesson.measured]  # type: ignore[attr-defined]


def test_a_sentence_whose_number_is_unknown_is_left_out() -> None:
    known = facts(DEFAULT_MODEL)
    lesson = next(one for one in LESSONS if len(one.measured) > 1 and set(placeholders(one.measured[0])) - set(placeholders(one.measured[1])))
    missing = next(name for name in placeholders(lesson.measured[0]) if name not in placeholders(lesson.measured[1]))
    told = measured(lesson, {name: value for name, value in known.items() if name != missing})
    assert len(told) == len(lesson.measured) - 1
    assert facts("llama-3.2-1b") == {} or "rtn3" not in facts("llama-3.2-1b")


def test_the_document_answers_the_five_questions_with_measured_numbers() -> None:
    text = document()
    for question in QUESTIONS:
        assert f"**{question}**" in text
    for run in kept_runs(DEFAULT_MODEL):
        assert perplexity(run.metrics["perplexity"]) in text
    assert not re.search(r"(?<!\\)\{\w+\}", text), "a place that was not filled"
    assert "not measured" not in text.replace("| not measured |", "")
    tables = [line for line in text.splitlines() if line.startswith("| ---")]
    assert len(tables) >= 5


def test_a_model_without_material_says_what_to_do() -> None:
    with pytest.raises(StoreError, match="`make assets` measures them"):
        document("llama-3.2-1b")


def test_damaged_material_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("salq.lessons.material.kept_folder", lambda model: tmp_path)
    assert kept_material(DEFAULT_MODEL) is None
    (tmp_path / "lessons.json").write_text('{"model": 3}')
    with pytest.raises(StoreError, match="`make assets` writes it anew"):
        kept_material(DEFAULT_MODEL)


def test_kept_material_is_small_and_finite() -> None:
    path = material_path(DEFAULT_MODEL)
    assert path.stat().st_size < 300_000
    json.loads(path.read_text(encoding="utf-8"), parse_constant=lambda name: pytest.fail(f"{name} in {path}"))


def test_a_ruler_in_text() -> None:
    values, marks = ruler([-1.0, -1.0, 1.0], [-1.0, 0.0, 1.0], -1.0, 1.0)
    assert (values[0], values[-1], len(values)) == ("2", "1", 72)
    assert (marks[0], marks[36], marks[-1], marks.count("|")) == ("|", "|", "|", 3)


def test_the_command_writes_prints_and_refuses(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = tmp_path / "lessons.md"
    assert main(["learn", "--export", str(target), "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["lessons"][0]["question"] == "Why clipping?"
    assert target.read_text(encoding="utf-8") == document()
    assert main(["learn"]) == 0
    assert "## 7." in capsys.readouterr().out
    assert main(["learn", "--export", str(tmp_path)]) == 2
    assert "name a file" in capsys.readouterr().err
