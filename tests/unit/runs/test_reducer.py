"""Maps that are made in a process of their own: the same as made here, its errors are sentences, and it may die at any moment."""

from pathlib import Path

import numpy as np
import pytest

from salq.core.errors import ModelError, SalqError
from salq.models.llama import read_weight
from salq.models.source import resolve
from salq.quant.spec import QuantSpec
from salq.runs import reducer
from salq.runs.execute import execute
from salq.runs.reduced import find_view, reduce_matrix
from salq.runs.reducer import Reducer, Wanted, carry_out
from salq.runs.store import RunStore

SPEC = QuantSpec(bits=2, group_size=32)


def wanted(home: Path, model: Path | str, **changed: object) -> Wanted:
    values = {"root": str(home / "runs"), "model": str(model), "spec": SPEC, "how": "mean", "block": 1, "matrix": "mlp.down_proj"}
    return Wanted.model_validate(values | changed)


@pytest.mark.slow
def test_the_process_makes_what_would_be_made_here_and_comes_back_after_its_death(salq_home: Path, tiny_folder: Path) -> None:
    asked, made = wanted(salq_home, tiny_folder), Reducer()
    source = resolve(str(tiny_folder))
    try:
        made.reduce(asked)
        found = find_view(asked.view(source.fingerprint))
        assert found is not None
        here = reduce_matrix(wanted(salq_home, tiny_folder, key="of-this-process").view(source.fingerprint), read_weight(source, 1, "mlp.down_proj"),
                             SPEC, None)  # fmt: skip
        np.testing.assert_allclose(found.maps["error"], here.maps["error"], rtol=2e-2)
        with pytest.raises(SalqError, match="20200101-000000-abcd"):
            made.reduce(wanted(salq_home, tiny_folder, run="20200101-000000-abcd"))
        child = made._child
        assert child is not None
        child.kill()
        child.wait()
        other = wanted(salq_home, tiny_folder, how="p99")
        made.reduce(other)
        assert find_view(other.view(source.fingerprint)) is not None
    finally:
        made.close()


def test_a_calibration_brings_its_own_codes_and_a_lost_block_is_one_sentence(salq_home: Path, make_request: object) -> None:
    store = RunStore(salq_home / "runs")
    run = store.create(make_request("apiq"))  # type: ignore[operator]
    list(execute(store, run))
    request = store.request(run)
    asked = wanted(salq_home, request.model, run=run)
    carry_out(asked)
    found = find_view(asked.view(resolve(request.model).fingerprint))
    assert found is not None
    assert found.tag == request.spec.tag  # type: ignore[union-attr]
    (store.result_folder(run) / "001.safetensors").write_bytes(b"half")
    with pytest.raises(SalqError, match="Block 1 of this run is not on this machine"):
        carry_out(wanted(salq_home, request.model, run=run, how="max"))


def test_what_cannot_be_reduced_is_one_sentence(salq_home: Path, tiny_folder: Path) -> None:
    with pytest.raises(ModelError):
        carry_out(wanted(salq_home, tiny_folder, block=99))
    with pytest.raises(SalqError, match="100"):
        carry_out(wanted(salq_home, tiny_folder, spec=QuantSpec(bits=2, group_size=100)))
    with pytest.raises(SalqError, match="no-such-model"):
        reducer.answer_to(wanted(salq_home, "no-such-model").model_dump_json())
    salq_home.mkdir(parents=True, exist_ok=True)
    (salq_home / "views").write_text("a file where a folder should be")
    with pytest.raises(SalqError, match="could not be written"):
        carry_out(wanted(salq_home, tiny_folder))
