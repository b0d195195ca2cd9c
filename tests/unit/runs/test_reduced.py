"""Maps that were reduced once: read back as they were made, never confused with another view, and only a cache."""

import json
from pathlib import Path

import numpy as np
import pytest
import torch

from salq.quant.spec import QuantSpec
from salq.runs.execute import execute
from salq.runs.reduced import View, find_view, reduce_matrix
from salq.runs.requests import ExploreRequest
from salq.runs.store import RunStore
from tests.helpers import random_weight

SPEC = QuantSpec(bits=3, group_size=32)
VIEW = View("f" * 64, SPEC.tag, "", "max", 1, "mlp.down_proj")


def test_a_view_is_read_back(salq_home: Path) -> None:
    made = reduce_matrix(VIEW, random_weight(12, 64), SPEC, None)
    found = find_view(VIEW)
    assert found is not None
    assert VIEW.path.is_relative_to(salq_home)
    np.testing.assert_allclose(found.maps["error"], made.maps["error"], rtol=2e-2)
    assert [found.histogram, found.residual] == json.loads(json.dumps([made.histogram, made.residual]))
    for other in (View("e" * 64, SPEC.tag, "", "max", 1, "mlp.down_proj"), View("f" * 64, "w2g32", "", "max", 1, "mlp.down_proj"),
                  View("f" * 64, SPEC.tag, "k", "max", 1, "mlp.down_proj"), View("f" * 64, SPEC.tag, "", "mean", 1, "mlp.down_proj"),
                  View("f" * 64, SPEC.tag, "", "max", 2, "mlp.down_proj")):  # fmt: skip
        assert find_view(other) is None


def test_a_damaged_file_is_no_view(salq_home: Path) -> None:
    reduce_matrix(VIEW, random_weight(12, 64), SPEC, None)
    VIEW.path.write_bytes(b"half a file")
    assert find_view(VIEW) is None


def test_a_disk_that_refuses_does_not_hide_the_picture(salq_home: Path) -> None:
    salq_home.mkdir(parents=True)
    (salq_home / "views").write_text("a file where a folder should be")
    assert reduce_matrix(VIEW, random_weight(12, 64), SPEC, None).maps["error"].shape == (12, 64)


def test_a_matrix_with_infinite_weights_is_reduced_all_the_same() -> None:
    weight = random_weight(12, 64)
    weight[3, 5] = torch.inf
    maps = reduce_matrix(VIEW, weight, SPEC, None)
    assert maps.facts["error"]["n_nonfinite"] == 1
    assert maps.residual is None


@pytest.mark.slow
def test_an_exploration_reduces_every_matrix_and_measures_a_run(salq_home: Path, tiny_folder: Path, make_request: object, text_file: Path) -> None:
    store = RunStore(salq_home / "runs")
    run = store.create(make_request("apiq"))  # type: ignore[operator]
    list(execute(store, run))
    specs = tuple(QuantSpec(bits=bits, group_size=32) for bits in (2, 3))
    request = ExploreRequest(model=str(tiny_folder), specs=specs, text=str(text_file), n_samples=2, seq_len=24, device="cpu", run=run)
    explored = store.create(request)
    list(execute(store, explored))
    info = store.get(explored)
    assert info.status == "done", info.problem
    files = list((salq_home / "views").rglob("*.npz"))
    assert len(files) == 2 * 7

    from salq.runs.exploration import of_run

    found = of_run(info)
    assert found is not None
    assert set(found.depth) == {"w2g32", "w3g32", run}
    assert list(found.runs) == [run]
    assert found.cells("weight_error", run) is not None
    assert found.cells("output_error", run) is not None
    weighted = found.cells("weighted_error", "w2g32")
    assert weighted is not None
    assert all(value is not None and value >= 0 for row in weighted for value in row)
