"""The command line as people use it: every command on a tiny model."""

import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest

from salq.cli import main
from salq.cli.report import STABLE
from salq.core import settings
from salq.runs.experiment import EXPERIMENTS, Contender, Experiment
from salq.runs.store import RunStore
from tests.e2e.commands import FEW, SALIENCY, SMALL, Salq, assert_one_sentence, report, texts


@pytest.fixture(scope="module")
def calibrated(process: Salq, tiny_folder: Path, text: str) -> dict[str, Any]:
    """A finished SAPR run called `mine`, as its JSON report."""
    return report(
        process(
            "calibrate", "--model", str(tiny_folder), "--recipe", "sapr", "--bits", "2", *SMALL, *SALIENCY, *texts(text), "--run", "mine", "--json"
        )
    )


def test_calibrate(calibrated: dict[str, Any]) -> None:
    assert list(calibrated)[: len(STABLE)] == list(STABLE)
    assert all(isinstance(calibrated[key], float) for key in STABLE)
    assert (calibrated["status"], calibrated["title"], calibrated["windows"], calibrated["window"]) == ("done", "mine", 2, 32)
    assert {"load", "saliency", "calibration", "evaluation"} <= set(calibrated["phase_seconds"])


def test_runs_show_and_list(salq: Salq, process: Salq, calibrated: dict[str, Any]) -> None:
    shown = process("runs", "show", "mine")
    assert shown.returncode == 0
    assert "bits per weight" in shown.stdout
    assert calibrated["run"] in shown.stdout
    listed = report(salq("runs", "list", "--json"))["runs"]
    assert calibrated["run"] in [run["run"] for run in listed]
    full = report(salq("runs", "show", calibrated["run"][-4:], "--json"))
    assert full["request"]["recipe"]["name"] == "sapr"
    assert full["environment"]["torch"]


def test_rerun_compare_and_delete(salq: Salq, calibrated: dict[str, Any]) -> None:
    again = report(salq("runs", "rerun", calibrated["run"], "--json"))
    assert again["run"] != calibrated["run"]
    assert (again["perplexity"], again["kl"]) == (calibrated["perplexity"], calibrated["kl"])
    assert (again["rerun_of"], again["same_codes"]) == (calibrated["run"], True)
    shown = report(salq("runs", "show", again["run"], "--json"))
    assert shown["codes_sha256"] == again["codes_sha256"]
    assert {"run": calibrated["run"], "same_codes": True, "differences": []} in shown["same_request"]
    compared = report(salq("compare", calibrated["run"], again["run"], "--json"))
    assert compared["difference"]["perplexity"] == 0
    assert compared["mean_differences"] == {"kl": 0.0, "nll": 0.0, "agrees": 0.0}
    assert "2 windows are too few for a verdict" in salq("compare", calibrated["run"], again["run"]).stdout
    assert report(salq("runs", "delete", again["run"], "--json"))["deleted"]
    assert salq("runs", "show", again["run"]).returncode == 2


def test_evaluate(salq: Salq, calibrated: dict[str, Any], tiny_folder: Path, text: str) -> None:
    where = ["--text", text, "--windows", "2", "--window", "32", "--device", "cpu", "--json"]
    of_run = report(salq("evaluate", "--run", "mine", *where))
    assert of_run["perplexity"] == pytest.approx(calibrated["perplexity"])
    assert of_run["bits_per_weight"] == calibrated["bits_per_weight"]
    rtn = report(salq("evaluate", "--model", str(tiny_folder), "--recipe", "rtn", "--bits", "2", "--group-size", "row", *where))
    assert set(STABLE) <= set(rtn)
    assert 2 < rtn["bits_per_weight"] < 2.2
    assert of_run["execution"].startswith("torch reference")
    fast = report(salq("evaluate", "--run", "mine", "--executor", "onnxruntime", *where))
    assert fast["execution"].startswith("onnxruntime MatMulNBits")
    assert fast["perplexity"] == pytest.approx(of_run["perplexity"], rel=0.02)  # activations in 8 bits


def test_export(salq: Salq, calibrated: dict[str, Any], tmp_path: Path) -> None:
    written = report(salq("export", "mine", str(tmp_path / "packed"), "--json"))
    assert written["run"] == calibrated["run"]
    assert {"manifest.json", "model.safetensors", "config.json", "tokenizer.json"} <= {path.name for path in (tmp_path / "packed").iterdir()}
    assert_one_sentence(salq("export", "mine", str(tmp_path / "packed"), "--json"), "is not empty")
    assert "salq.load_packed" in salq("export", "mine", str(tmp_path / "again")).stdout


def test_bench(salq: Salq, tiny_folder: Path, tmp_path: Path) -> None:
    found = report(salq(*"bench kernels --shape 32x64 --bits 4 --calls 3 --device cpu --json --out".split(), str(tmp_path / "k.json")))
    assert found["timings"][0]["speedup"] == 1
    assert json.loads((tmp_path / "k.json").read_text()) == found
    model = ["--model", str(tiny_folder), "--bits", "2", "--tokens", "3", "--rounds", "1", "--device", "cpu"]
    assert len(report(salq("bench", "decode", *model, "--rank", "2", "--json"))["timings"]) == 4
    assert "engine, w2g64" in salq("bench", "prefill", *model).stdout
    model[4:6] = ["--blocks", "1"]
    assert report(salq("bench", "calibrate", *model, "--json"))["speeds"][0]["spec"] == "w2g64"


def test_sweep_skips_what_is_finished_and_survives_what_fails(salq: Salq, tiny_folder: Path, text: str) -> None:
    words = ["sweep", "--model", str(tiny_folder), "--recipe", "rtn", "--bits", "2,4", "--group-size", "32,100", "--windows", "2", "--window", "32"]
    first = salq(*words, *texts(text), "--device", "cpu", "--json")
    assert first.returncode == 2
    runs = json.loads(first.stdout.splitlines()[-1])["runs"]
    assert [(run["label"], run["status"]) for run in runs] == [
        ("rtn w2g32", "done"), ("rtn w2g100", "refused"), ("rtn w4g32", "done"), ("rtn w4g100", "refused"),
    ]  # fmt: skip
    assert "not a multiple of group size 100" in runs[1]["error"]
    again = salq(*words, *texts(text), "--device", "cpu", "--json")
    assert [run["reused"] for run in json.loads(again.stdout.splitlines()[-1])["runs"]] == [True, False, True, False]


SHORT = {"epochs": 3, "data.n_samples": 12, "data.seq_len": 96}
BRIEF = Experiment(
    "brief",
    "Do the parts of an experiment fit together?",
    (Contender("apiq", "apiq", SHORT), Contender("sapr", "sapr", {**SHORT, "saliency.n_samples": 4, "saliency.seq_len": 96})),
)


def test_experiment(
    salq: Salq, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str], tmp_path: Path, tiny_folder: Path, text: str
) -> None:
    """Sides one by one, then the table; a finished side is found again by a home that never ran it."""
    monkeypatch.setitem(EXPERIMENTS, "brief", BRIEF)  # those of the repository run the quick preset
    words = ["experiment", "brief", "--model", str(tiny_folder), "--bits", "2", "--group-size", "32", "--seeds", "1", "--device", "cpu"]
    words += ["--text", text, "--eval-text", text, "--windows", "3", "--window", "48", "--out", str(tmp_path / "out")]
    for side in ("rtn,2,0", "apiq,2,0", "sapr,2,0"):
        found = report(salq(*words, "--only", side, "--json"))
    rows = {row["recipe"]: row for row in found["rows"]}
    assert set(rows) == {"rtn", "apiq", "sapr"}
    low, high = rows["sapr"]["interval"]
    assert low <= rows["sapr"]["degradation_removed"] <= high
    assert rows["sapr"]["blocks"] == 2
    assert rows["apiq"]["kl"] < rows["rtn"]["kl"]
    assert rows["sapr"]["bits_per_weight"] == rows["apiq"]["bits_per_weight"]
    kept = (tmp_path / "out" / "brief" / "apiq-w2g32-seed0.json").read_text()
    assert str(tmp_path) not in kept
    assert str(tiny_folder.parent) not in kept
    runs = RunStore(settings.runs_dir()).ids()
    (fewer,) = report(salq(*words[:-1], str(tmp_path / "fewer"), "--windows", "2", "--only", "apiq,2,0", "--json"))["rows"]
    assert RunStore(settings.runs_dir()).ids() == runs  # the same codes on fewer windows: measured, not calibrated again
    assert fewer["seconds"] == rows["apiq"]["seconds"]
    assert fewer["kl"] != rows["apiq"]["kl"]
    monkeypatch.setenv("SALQ_HOME", str(tmp_path / "elsewhere"))
    again = main([*words, "--report"])
    assert again == 0
    assert "degradation removed" in (tmp_path / "out" / "brief.md").read_text()
    assert main([*words, "--only", "apiq,2,0"]) == 0
    assert RunStore(settings.runs_dir()).ids() == []
    assert main([*words, "--only", "nobody,2,0"]) == 2
    assert main(["experiment", "nothing"]) == 2
    assert main(["experiment", "rates-of-blocks", "--text", "bundled"]) == 2  # settings are not chosen on text that is reported
    assert main(["experiment", "rates-of-blocks", "--text", text, "--out", str(tmp_path), "--report"]) == 2
    assert "there is no finished side" in capsys.readouterr().err.lower()


def test_saliency_and_errors(salq: Salq, tiny_folder: Path, text: str) -> None:
    saliency = report(salq("saliency", "--model", str(tiny_folder), *FEW, "--text", text, "--json"))
    assert len(saliency["mean"]) == 2
    assert len(saliency["mean"][0]) == len(saliency["linears"]) == 7
    errors = report(salq("errors", "--model", str(tiny_folder), "--bits", "2,4", "--group-size", "32", *FEW, "--text", text, "--json"))
    assert [grid["tag"] for grid in errors["errors"]] == ["w2g32", "w4g32"]
    shown = salq("errors", "--model", str(tiny_folder), "--bits", "3", "--group-size", "32", *FEW, "--text", text)
    assert "w3g32: output error" in shown.stdout


def test_errors_of_a_run(salq: Salq, calibrated: dict[str, Any], text: str) -> None:
    found = report(salq("errors", "--run", calibrated["run"], *FEW, "--text", text, "--json"))
    assert found["errors"][0]["made_by"] == "calibrated"


def test_chat(salq: Salq, calibrated: dict[str, Any]) -> None:
    answered = report(
        salq("chat", "--run", calibrated["run"], "--prompt", "Hello", "--max-new-tokens", "3", "--head", "8bit", "--device", "cpu", "--json")
    )
    assert [side["kind"] for side in answered["sides"]] == ["original", "run"]
    assert answered["sides"][0]["execution"] == "torch float32"
    assert answered["sides"][1]["execution"].startswith("onnxruntime MatMulNBits")
    assert answered["sides"][1]["execution"].endswith("; the head in 8 bits")


def test_estimate(salq: Salq) -> None:
    found = report(salq("calibrate", "--recipe", "sapr", "--estimate", "--device", "cpu", "--json"))
    assert found["estimate"]
    assert found["seconds"] > 0
    assert found["model_size_mb"] > found["size_mb"]


def test_models_and_recipes(salq: Salq) -> None:
    models = report(salq("models", "--json"))
    assert models["default"] in [model["key"] for model in models["models"]]
    assert "smollm2-135m" in salq("models").stdout
    named = [recipe["name"] for recipe in report(salq("recipes", "--json"))["recipes"]]
    assert named == ["rtn", "gptq", "apiq", "sapr", "salq", "salq-full", "apiq-lw", "sapr-staged", "sapr-sw", "db-llm", "binary-mos"]
    one = report(salq("recipes", "sapr", "--preset", "published", "--json"))
    assert one["recipe"]["data"] == {"n_samples": 128, "seq_len": 2048, "streams_gb": None}
    assert any(field["path"].endswith("strength") for field in one["fields"])


def wait_for_step(store: RunStore, process: "subprocess.Popen[str]") -> str:
    """Id of the newest run, once it has made a step."""
    deadline = time.monotonic() + 200
    while time.monotonic() < deadline:
        assert process.poll() is None, "it ended too early"
        for info in store.list()[:1]:
            if info.status == "running" and info.progress.curves:
                return info.id
        time.sleep(0.1)
    raise AssertionError("no step was made")


def interrupt_until_it_stops(process: "subprocess.Popen[str]") -> str:
    """Press Ctrl-C, and again after ten seconds as a person would: an interrupt that lands in a destructor is swallowed by Python."""
    for _ in range(6):
        process.send_signal(signal.SIGINT)
        try:
            return process.communicate(timeout=10)[1]
        except subprocess.TimeoutExpired:
            continue
    raise AssertionError("six interrupts did not stop the run")


HEARS_CTRL_C = """
import signal, sys
signal.signal(signal.SIGINT, signal.default_int_handler)  # tests that run in the background inherit an ignored one
from salq.cli import main
sys.exit(main(sys.argv[1:]))
"""


def test_ctrl_c_keeps_the_run_and_says_how_to_resume(salq: Salq, environment: dict[str, str], home: Path, tiny_folder: Path, text: str) -> None:
    words = ["calibrate", "--model", str(tiny_folder), "--recipe", "apiq", "--bits", "3", *SMALL, *texts(text), "--set", "epochs=1000"]
    process = subprocess.Popen(
        [sys.executable, "-c", HEARS_CTRL_C, *words], cwd=settings.ROOT, env=environment, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    with process:
        run_id = wait_for_step(RunStore(home / "runs"), process)
        told = interrupt_until_it_stops(process)
    assert process.returncode == 130
    assert f"runs resume {run_id}" in told
    assert "Traceback" not in told
    assert RunStore(home / "runs").get(run_id).status == "cancelled"


def test_in_the_background_and_cancelled(salq: Salq, tiny_folder: Path, text: str) -> None:
    words = [
        "calibrate",
        "--model",
        str(tiny_folder),
        "--recipe",
        "apiq",
        "--bits",
        "4",
        *SMALL,
        *texts(text),
        "--set",
        "epochs=1000",
        "--background",
    ]
    started = report(salq(*words, "--json"))
    assert started["status"] == "running"
    cancelled = report(salq("runs", "cancel", started["run"], "--json"))
    assert cancelled["status"] == "cancelled"


def test_help_is_light(environment: dict[str, str]) -> None:
    script = "import sys, atexit; from salq.cli import main; atexit.register(lambda: print('torch' in sys.modules)); main(['calibrate', '--help'])"
    shown = subprocess.run(
        [sys.executable, "-c", script], cwd=settings.ROOT, env=environment, check=True, capture_output=True, text=True, timeout=120
    )
    assert shown.stdout.splitlines()[-1] == "False"
