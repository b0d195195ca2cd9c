"""Experiments as values: every side resolves before any work, and the switches of the ablations are in the requests."""

import pytest

from salq import recipes
from salq.core.errors import ConfigError
from salq.runs.experiment import EXPERIMENTS, get, sides
from salq.runs.requests import CalibrateRequest

TEMPLATE = CalibrateRequest(model="smollm2-135m", recipe=recipes.get("apiq", bits=2), text="bundled")


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_side_resolves_to_a_request_of_its_own(name: str) -> None:
    found = sides(get(name), TEMPLATE, (2,), 2)
    assert len({side.key for side in found}) == len({side.file for side in found}) == len(found)
    assert {side.bits for side in found} == {2, 3}


def test_the_ablation_of_refreshed_saliency_differs_in_nothing_else() -> None:
    by_label = {side.label: side.request.recipe for side in sides(get("ablations"), TEMPLATE, (2,), 1)}
    for label in ("sapr", "channel-saliency"):
        plain, refreshed = by_label[label], by_label[f"{label}-refreshed"]
        assert (plain.refresh, refreshed.refresh) == (None, 6)
        assert plain.saliency is not None
        assert plain.saliency.model_copy(update={"refresh": 6}) == refreshed.saliency
        assert plain.model_dump(exclude={"saliency"}) == refreshed.model_dump(exclude={"saliency"})


def test_a_width_that_a_contender_does_not_have_is_refused_before_any_work() -> None:
    with pytest.raises(ConfigError, match="use --bits 2"):
        sides(get("quantizers"), TEMPLATE, (2, 3), 1)
