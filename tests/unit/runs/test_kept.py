"""Results in the repository: what is written reads back, what is missing or damaged reads as nothing or as one sentence."""

from pathlib import Path

import numpy as np
import pytest

from salq.core import settings
from salq.core.errors import StoreError
from salq.evaluation.matrix_view import matrix_view
from salq.models.catalogue import DEFAULT_MODEL
from salq.quant.spec import QuantSpec
from salq.runs.kept import KeptRun, MatrixMaps, WeightGroup, keep_group, keep_maps, keep_runs, kept_group, kept_maps, kept_runs
from tests.helpers import random_weight


@pytest.fixture(autouse=True)
def assets(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(settings, "ASSETS", tmp_path / "assets")
    return tmp_path / "assets" / "results" / DEFAULT_MODEL


def maps() -> MatrixMaps:
    weight = random_weight(160, 64)
    return MatrixMaps.of(matrix_view("m", weight, QuantSpec(bits=3, group_size=32), weight.square()), 1, "mlp.down_proj")


def test_nothing_kept_reads_as_nothing() -> None:
    assert kept_maps(DEFAULT_MODEL) is None
    assert kept_group(DEFAULT_MODEL) is None
    assert kept_runs(DEFAULT_MODEL) == []


def test_maps_read_back_within_one_percent() -> None:
    before = maps()
    keep_maps(DEFAULT_MODEL, before)
    after = kept_maps(DEFAULT_MODEL)
    assert after is not None
    for name, values in before.maps.items():
        # float16 keeps log10 to within 2**-11 of its size: at 1e-8 that is 0.4 % of 8 decades... of a decade 0.004, so 1 % of the value
        np.testing.assert_allclose(after.maps[name], values, rtol=0.01, atol=1e-30)
    assert (after.row_edges, after.col_edges, after.shape, after.facts) == (before.row_edges, before.col_edges, before.shape, before.facts)
    assert (after.block, after.matrix, after.tag, after.how, after.group_size) == (1, "mlp.down_proj", "w3g32", "max", 32)


def test_damaged_maps_and_groups_read_as_nothing(assets: Path) -> None:
    assets.mkdir(parents=True)
    (assets / "maps.npz").write_bytes(b"not a zip")
    (assets / "group.json").write_text('{"weights": []}')
    assert kept_maps(DEFAULT_MODEL) is None
    assert kept_group(DEFAULT_MODEL) is None


def test_maps_that_were_cut_or_altered_anywhere_read_as_nothing_or_as_maps(assets: Path) -> None:
    keep_maps(DEFAULT_MODEL, maps())
    path, generator = assets / "maps.npz", np.random.default_rng(0)
    whole = path.read_bytes()
    for size in (*range(0, len(whole), max(1, len(whole) // 40)), len(whole) - 1):
        path.write_bytes(whole[:size])
        assert kept_maps(DEFAULT_MODEL) is None
    for _ in range(150):
        at = int(generator.integers(len(whole)))
        path.write_bytes(whole[:at] + generator.bytes(3) + whole[at + 3 :])
        assert kept_maps(DEFAULT_MODEL) is None or isinstance(kept_maps(DEFAULT_MODEL), MatrixMaps)


def test_a_group_knows_its_levels() -> None:
    group = WeightGroup(0, "mlp.up_proj", 3, 64, [0.1, -0.2], {"2": {"scale": 0.1, "zero_point": 2.0}})
    keep_group(DEFAULT_MODEL, group)
    assert kept_group(DEFAULT_MODEL) == group
    assert group.levels(2) == pytest.approx([-0.2, -0.1, 0.0, 0.1])


def test_runs_read_back_and_damage_is_one_sentence(assets: Path) -> None:
    runs = [KeptRun("rtn w3g64", "python -m salq calibrate", {"perplexity": 75.6})]
    keep_runs(DEFAULT_MODEL, runs)
    assert kept_runs(DEFAULT_MODEL) == runs
    (assets / "runs.json").write_text('[{"unknown": 1}]')
    with pytest.raises(StoreError, match="make assets"):
        kept_runs(DEFAULT_MODEL)
