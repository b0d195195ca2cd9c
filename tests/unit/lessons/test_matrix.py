"""One matrix for the lessons: what is cut out of it, its best clip and the spectrum of its rounding error."""

import pytest
import torch

from salq.core.errors import ModelError, ShapeError
from salq.lessons.matrix import best_clip, patch_of, row_of, shares_of, spectrum_of, squared_error
from salq.lessons.selected import Selected, selected_material
from salq.quant.frozen import rtn
from salq.quant.spec import QuantSpec
from tests.helpers import random_weight


def test_codes_of_a_kept_weight_are_those_of_the_weight() -> None:
    weight = random_weight(3, 256)
    kept = torch.tensor([row_of(weight, 1, 0).weights])
    for bits in (2, 3, 4, 8):
        spec = QuantSpec(bits=bits, group_size=64)
        assert torch.equal(rtn(kept, spec).codes, rtn(weight[1:2], spec).codes)


def test_narrow_and_damaged_matrices() -> None:
    assert len(row_of(random_weight(2, 192), 0, 64).weights) == 128
    damaged = random_weight(2, 64)
    damaged[0, 3] = float("nan")
    for weight in (random_weight(2, 32), damaged):
        with pytest.raises(ShapeError, match="has no 64 finite weights"):
            row_of(weight, 0, 0)


def test_the_spectrum_holds_the_whole_error(generator: torch.Generator) -> None:
    weight, inputs = random_weight(24, 64), torch.randn(64, 200, generator=generator)
    spectrum = spectrum_of(weight, inputs @ inputs.T)
    for bits in (2, 3, 4):
        residual = (weight - rtn(weight, QuantSpec(bits=bits, group_size=64)).effective_weight()).double()
        for values, want in ((spectrum.weight, residual.norm()), (spectrum.output, (residual @ inputs.double()).norm())):
            found = values[str(bits)]
            assert list(found) == sorted(found, reverse=True)
            assert sum(one * one for one in found) ** 0.5 == pytest.approx(float(want), rel=1e-3)
    assert spectrum.output_norm == pytest.approx(float((weight @ inputs).double().norm()), rel=1e-4)


def test_the_best_clip_is_no_worse_than_any_other() -> None:
    weight = random_weight(1, 64)
    weight[0, 0] *= 5
    spec = QuantSpec(bits=2, group_size=None)
    share, error = best_clip(weight, spec)
    assert 0.3 <= share < 1
    assert error < squared_error(weight, rtn(weight, spec).effective_weight())
    told = shares_of(row_of(weight.repeat(1, 4), 0, 0), row_of(weight, 0, 0))
    assert told["best_share2"] == share
    assert 0 < told["best_gain2"] < 1


def test_a_patch_has_rows_from_the_whole_matrix() -> None:
    weight = random_weight(100, 128)
    patch = patch_of("mlp.up_proj", weight, weight.square(), 64)
    assert patch.rows == tuple(range(0, 96, 6))
    assert torch.allclose(torch.tensor(patch.weights), weight[:96:6, 64:128], rtol=1e-6)
    assert patch.saliency is not None
    assert torch.allclose(torch.tensor(patch.saliency), weight[:96:6, 64:128].square(), rtol=1e-3)


def test_a_selected_matrix_is_read_from_disk(tiny_folder: object) -> None:
    found = selected_material(Selected(str(tiny_folder), 1, "mlp.down_proj", row=3, group=1), None)
    assert (found.title, found.block, found.matrix) == ("tiny-llama", 1, "mlp.down_proj")
    assert found.patch.saliency is None
    assert (len(found.row.weights), found.travel, found.budget, found.talk) == (256, {}, None, None)
    with pytest.raises(ModelError, match=r"holds no readable tensor model\.layers\.9"):
        selected_material(Selected(str(tiny_folder), 9, "mlp.down_proj"), None)
