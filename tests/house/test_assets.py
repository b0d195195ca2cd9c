"""What the first screen shows was made by the recipes of this checkout."""

from benchmarks.make_assets import CALIBRATIONS, SPECS, command, fingerprint, kept_before
from benchmarks.make_tokens import fingerprint as tokens_fingerprint
from benchmarks.results_table import README, readme_with, table
from salq.core.files import read_json
from salq.models.catalogue import DEFAULT_MODEL
from salq.runs.exploration import kept, kept_folder
from salq.runs.kept import kept_group, kept_maps, kept_runs
from salq.runs.noise import known_floor
from salq.ui.compare_actions import kept_chat
from salq.ui.token_actions import kept_tokens


def test_kept_results_were_made_by_the_current_recipes() -> None:
    made = read_json(kept_folder(DEFAULT_MODEL) / "made.json")
    assert made["fingerprint"] == fingerprint(), "a recipe, a preset or the list of runs changed: run `make assets`"
    assert len(kept_before()) == len(CALIBRATIONS), "`make assets` would compute what is kept once more"


def test_the_kept_token_scores_are_of_the_kept_conversation_and_run() -> None:
    path = kept_folder(DEFAULT_MODEL) / "tokens.json"
    assert read_json(path)["fingerprint"] == tokens_fingerprint(), "the recipe or the kept conversation changed: run `make assets`"
    assert path.stat().st_size < 100_000
    found, chat = kept_tokens(DEFAULT_MODEL), kept_chat(DEFAULT_MODEL)
    assert found is not None
    assert chat is not None
    assert "".join(token["text"] for token in found.shown["tokens"]) == chat.answers[0]
    assert found.shown["fork"]["forked"]
    assert len(found.where_rows) == 30 + 7
    assert chat.answers[0] in found.command


def test_kept_results_are_complete() -> None:
    exploration = kept(DEFAULT_MODEL)
    assert exploration is not None
    assert exploration.n_blocks == 30
    assert {spec.tag for spec in SPECS} == set(exploration.errors)
    assert exploration.saliency is not None
    assert kept_maps(DEFAULT_MODEL) is not None
    assert kept_group(DEFAULT_MODEL) is not None
    assert kept_chat(DEFAULT_MODEL) is not None
    for run in kept_runs(DEFAULT_MODEL):
        floor = known_floor(DEFAULT_MODEL, run.metrics)
        assert floor is not None, run.title
        assert floor.kl > 0
        assert floor.kl < run.metrics["kl"] or run.metrics["bits"] == 8, run.title  # 8 bits are nearer to float32 than bfloat16 is


def test_every_kept_run_has_its_command_and_its_conditions() -> None:
    runs = kept_runs(DEFAULT_MODEL)
    assert [run.command for run in runs] == [command(*one) for one in CALIBRATIONS]
    for run in runs:
        for name in (
            "perplexity",
            "perplexity_original",
            "kl",
            "bits_per_weight",
            "size_mb",
            "seconds",
            "peak_memory_gb",
            "text",
            "windows",
            "window",
            "reference",
        ):
            assert run.metrics.get(name) is not None, (run.title, name)


def test_readme_shows_the_kept_results() -> None:
    text = README.read_text(encoding="utf-8")
    assert readme_with(text, table(kept_runs(DEFAULT_MODEL))) == text, "run `python benchmarks/results_table.py`"
