"""A finished run measured anew: as the run itself measured, and never with a block that was lost counted as full precision."""

import pytest

from salq.core.drain import drain
from salq.core.errors import StoreError
from salq.runs.execute import execute
from salq.runs.remeasure import remeasured
from salq.runs.requests import CalibrateRequest
from salq.runs.store import RunStore
from salq.runs.subjects import original_of, subject_of
from tests.unit.runs.conftest import MakeRequest


def test_measured_anew_is_as_measured_and_a_lost_block_is_no_full_precision(store: RunStore, make_request: MakeRequest) -> None:
    request = make_request("rtn")
    assert isinstance(request, CalibrateRequest)
    run_id = store.create(request)
    list(execute(store, run_id))
    side = subject_of(store, run_id)
    again, original = drain(remeasured(store, (side, original_of(side)), request.evaluation, "cpu"))
    assert again.metrics["kl"] == pytest.approx(side.metrics["kl"])
    assert (original.run, original.metrics["perplexity"]) == ("", pytest.approx(side.metrics["perplexity_original"]))
    store.blocks(run_id).path(1).unlink()
    with pytest.raises(StoreError):
        drain(remeasured(store, (side, original_of(side)), request.evaluation, "cpu"))
