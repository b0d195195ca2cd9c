"""Experiments as values: every side resolves before any work, they differ in what they say they differ in, and find their files again."""

import pytest

from salq import recipes
from salq.core.errors import ConfigError
from salq.runs.experiment import EXPERIMENTS, get, sides
from salq.runs.limits import check
from salq.runs.requests import CalibrateRequest

TEMPLATE = CalibrateRequest(model="smollm2-135m", recipe=recipes.get("rtn", preset="quick"), text="bundled")  # type: ignore[arg-type]


@pytest.mark.parametrize("name", EXPERIMENTS)
def test_every_side_can_be_asked_for(name: str) -> None:
    experiment = get(name)
    found = sides(experiment, TEMPLATE, bits=[2], seeds=2)
    assert [side.label for side in found[:3]] == ["rtn", "rtn", experiment.contenders[0].label]  # the neighbours, then the baseline
    best = [("salq", 3)] if not experiment.chooses else []
    assert len({side.file for side in found}) == len({side.key for side in found}) == len(found) == 2 + 2 * len(experiment.contenders) + len(best)
    assert [(side.label, side.bits) for side in found[len(found) - len(best) :]] == best
    for side in found:
        check(side.request)
        assert side.request.recipe.preset == "quick"


def test_the_best_recipe_at_the_next_width_is_a_neighbour_once() -> None:
    asked = [(side.bits, side.seed) for side in sides(get("salq-vs-apiq"), TEMPLATE, (2, 3), 2) if side.label == "salq"]
    assert sorted(asked) == [(2, 0), (2, 1), (3, 0), (3, 1), (4, 0)]
    part = TEMPLATE.model_copy(update={"n_blocks": 2})
    assert all(side.label != "salq" for side in sides(get("sapr-vs-apiq"), part, (2, 3), 1)), "its pass needs all blocks"
    assert all(side.label != "salq" for side in sides(get("sapr-vs-apiq"), TEMPLATE, (8,), 1)), "nothing comes after 8 bits"


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
