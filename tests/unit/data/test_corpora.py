"""WikiText-2 and C4 from a hub that answers (one on this machine), then without it. The hub client reads its address once, so each
question is asked in a process of its own.
"""

import gzip
import json
import os
import subprocess
import sys
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.hub_server import hub

ASK = """
import json, sys
from salq.data.sources import auto_source, load_text
for source in sys.argv[1:]:
    for role in ("calibration", "evaluation"):
        text = load_text(source, role)
        print(json.dumps([auto_source(role), text.name, text.title, text.licence, text.content]))
"""
README = """---
configs:
- config_name: wikitext-2-raw-v1
  data_files:
  - split: test
    path: wikitext-2-raw-v1/test-*
  - split: train
    path: wikitext-2-raw-v1/train-*
---
"""


def ask(home: Path, *sources: str, **environment: str) -> tuple[list[list[str]], str]:
    values = {key: value for key, value in os.environ.items() if key != "HF_HUB_OFFLINE"} | {"NO_PROXY": "127.0.0.1"}
    values |= {"HF_HOME": str(home / "hf"), "SALQ_HOME": str(home / "salq"), **environment}
    done = subprocess.run([sys.executable, "-c", ASK, *sources], env=values, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines()], done.stderr


@pytest.fixture
def data_sets(tmp_path: Path) -> Path:
    """Both corpora in the layout in which they are published, with a few lines each."""
    root = tmp_path / "hub"
    probe = root / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    wikitext = root / "datasets" / "Salesforce" / "wikitext" / "wikitext-2-raw-v1"
    c4 = root / "datasets" / "allenai" / "c4" / "en"
    for folder in (probe, wikitext, c4):
        folder.mkdir(parents=True)
    (probe / "config.json").write_text("{}")
    (wikitext.parent / "README.md").write_text(README)
    for split in ("train", "test"):
        pq.write_table(pa.table({"text": [f" = {split} = \n", "", " One line . \n"]}), wikitext / f"{split}-00000-of-00001.parquet")
    for shard in ("c4-train.00000-of-01024", "c4-validation.00000-of-00008"):
        with gzip.open(c4 / f"{shard}.json.gz", "wt") as file:
            for index in range(2500):
                file.write(json.dumps({"text": f"{shard[:6]} {index}", "url": "-", "timestamp": "-"}) + "\n")
    return root


def test_corpora_are_fetched_once_and_kept(data_sets: Path, tmp_path: Path) -> None:
    with hub(data_sets) as (address, asked):
        answers, errors = ask(tmp_path, "auto", "c4", HF_ENDPOINT=address)
        assert errors == ""
        asked.clear()
        again, _ = ask(tmp_path, "auto", "c4", HF_ENDPOINT=address)
        assert asked == []
    offline, _ = ask(tmp_path, "auto", "c4", HF_HUB_OFFLINE="1")
    assert answers == again == offline
    wiki_train, wiki_test, c4_train, c4_validation = answers
    assert wiki_train == ["wikitext2", "wikitext2 (train)", "WikiText-2, train split", "CC BY-SA 3.0", " = train = \n\n\n\n\n One line . \n"]
    assert wiki_test[4] == " = test = \n\n\n\n\n One line . \n"
    assert c4_train[4].startswith("c4-tra 0\n\nc4-tra 1\n\n")
    assert [len(c4_train[4].split("\n\n")), len(c4_validation[4].split("\n\n"))] == [2000, 1100]


def test_auto_falls_back_when_the_hub_does_not_deliver(tmp_path: Path) -> None:
    probe = tmp_path / "hub" / "HuggingFaceTB" / "SmolLM2-135M-Instruct"
    probe.mkdir(parents=True)
    (probe / "config.json").write_text("{}")
    with hub(tmp_path / "hub") as (address, _):
        answers, _ = ask(tmp_path, "auto", HF_ENDPOINT=address)
    assert [answer[:2] for answer in answers] == [["wikitext2", "bundled (calibration)"], ["wikitext2", "bundled (evaluation)"]]
