"""The lessons as the page sends them: readable without scripts, and real weights or one sentence on request."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest

from salq.lessons.facts import facts
from salq.lessons.reader import read
from salq.lessons.words import LESSONS
from salq.models.catalogue import DEFAULT_MODEL
from salq.runs.limits import Limits
from salq.runs.store import RunStore
from salq.ui.lessons import SCRIPTS, lessons_html, material_for

READER = SimpleNamespace(material=read)
"""The page's `Reader` without its process, which a browser test drives."""


@pytest.fixture
def ctx(tmp_path: Path) -> SimpleNamespace:
    """What `material_for` needs of the page."""
    return SimpleNamespace(store=RunStore(tmp_path / "runs"), limits=Limits())


def test_words_are_there_before_any_script_runs() -> None:
    html = lessons_html(facts(DEFAULT_MODEL))
    for lesson in LESSONS:
        assert f'data-lesson="{lesson.key}"' in html
        assert (SCRIPTS / f"{lesson.key}.js").is_file()
    assert html.count('class="reveal" hidden') == len(LESSONS)
    assert not re.search(r"\{\w+\}", html), "a place that was not filled"
    assert lessons_html({}).count("data-lesson") == len(LESSONS)  # nothing is kept: the lessons are still there


def test_every_live_number_has_a_script_that_fills_it() -> None:
    for lesson in LESSONS:
        script = (SCRIPTS / f"{lesson.key}.js").read_text(encoding="utf-8")
        numbers = script[script.index("export function numbers") :]
        for name in re.findall(r"\{(\w+)\}", lesson.live):
            assert re.search(rf"\b{name}\b", numbers), (lesson.key, name)


def test_kept_and_selected_weights(ctx: SimpleNamespace, tiny_folder: Path) -> None:
    kept = material_for("kept", ctx, READER, {}, DEFAULT_MODEL)
    assert kept["material"]["matrix"] in kept["told"]
    selected = material_for("selected", ctx, READER, {"block": 0, "matrix": "mlp.up_proj"}, str(tiny_folder))
    assert (selected["source"], selected["material"]["matrix"]) == ("selected", "mlp.up_proj")
    assert len(selected["material"]["row"]["weights"]) == 192


def test_what_is_missing_is_one_sentence(ctx: SimpleNamespace, tiny_folder: Path) -> None:
    for selection, model, told in (
        ({"block": 0, "matrix": "mlp.up_proj"}, DEFAULT_MODEL, "are not on this machine yet"),
        ({"block": 99, "matrix": "mlp.up_proj"}, str(tiny_folder), "no readable tensor"),
    ):
        answer = material_for("selected", ctx, READER, selection, model)
        assert answer["material"] is None
        assert told in answer["told"]
