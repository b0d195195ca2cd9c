"""Recipes are values: named, resolved, changed by field, refused in one sentence."""

import pytest

from salq import recipes
from salq.calibration.recipe import Fit, Recipe
from salq.calibration.regularizers import WeightPreservation
from salq.calibration.sliced_wasserstein import SlicedWasserstein
from salq.core.errors import ConfigError, SalqError, UnknownNameError


@pytest.mark.parametrize("preset", recipes.PRESETS)
@pytest.mark.parametrize("name", recipes.names())
def test_every_preset_resolves_and_survives_json(name: str, preset: str) -> None:
    bits = 1 if name == "binary-mos" else 2
    recipe = recipes.get(name, preset=preset, bits=bits, group_size=32)
    assert recipe.preset == preset
    assert recipe.spec.tag == ("w1" if bits == 1 else "w2g32")
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe


def test_published_apiq_has_the_published_settings() -> None:
    recipe = recipes.get("apiq", preset="published", bits=2)
    (stage,) = recipe.stages
    assert recipe.data is not None
    assert recipe.adapter is not None
    assert (recipe.adapter.rank, recipe.adapter.alpha) == (64, 16)
    assert (recipe.data.n_samples, recipe.data.seq_len) == (128, 2048)
    assert (stage.epochs, stage.lr_clipping, stage.lr_adapter, stage.weight_decay, stage.batch_size) == (20, 5e-3, 5e-4, 0.1, 1)


def test_published_sapr_uses_the_published_strength() -> None:
    stage = recipes.get("sapr", preset="published").stages[0]
    assert stage.regularizer is not None
    assert (stage.regularizer.strength, stage.regularizer.convention, stage.regularizer.where) == (1e-3, "published", "before_lora")


def test_a_bare_name_sets_every_field_of_that_name() -> None:
    recipe = recipes.get("sapr", overrides={"n_samples": "5"})
    assert recipe.data is not None
    assert recipe.saliency is not None
    assert recipe.data.n_samples == recipe.saliency.n_samples == 5


def test_a_path_sets_one() -> None:
    recipe = recipes.get("sapr", overrides={"saliency.n_samples": 5, "stages.0.epochs": 2})
    assert recipe.data is not None
    assert recipe.saliency is not None
    assert recipe.saliency.n_samples == 5
    assert recipe.data.n_samples != 5
    assert recipe.stages[0].epochs == 2


def test_words_people_try_first() -> None:
    recipe = recipes.get("apiq", overrides={"samples": 7, "lr": 1e-3, "rank": 0})
    assert recipe.data is not None
    assert recipe.data.n_samples == 7
    assert recipe.stages[0].lr_clipping == recipe.stages[0].lr_adapter == 1e-3
    assert recipe.adapter is None


def test_fields_cover_what_set_accepts_and_carry_help() -> None:
    recipe = recipes.get("sapr")
    for field in recipes.fields(recipe):
        assert field.help, field.path
        assert recipes.get("sapr", overrides={field.path: field.value}) == recipe


@pytest.mark.parametrize(
    ("overrides", "says"),
    [
        ({"ranks": 8}, "'ranks' is not known"),
        ({"rank": -3}, r"adapter\.rank"),
        ({"bits": 5}, "2, 3, 4 or 8"),
        ({"epochs": "many"}, "valid integer"),
        ({"epochs": 10**9}, "less than or equal to 1000"),
        ({"strength": float("nan")}, "strength"),
        ({"group_size": 0}, "group_size"),
        ({"convention": "loud"}, "'relative' or 'published'"),
    ],
)
def test_bad_fields_are_refused_in_one_sentence(overrides: dict[str, object], says: str) -> None:
    with pytest.raises(SalqError, match=says) as caught:
        recipes.get("sapr", overrides=overrides)
    assert "\n" not in str(caught.value)


def test_unknown_names() -> None:
    with pytest.raises(UnknownNameError, match="rtn, gptq, apiq, sapr, salq, salq-full, apiq-lw, sapr-staged, sapr-sw, db-llm, binary-mos"):
        recipes.get("awq")
    with pytest.raises(UnknownNameError, match="quick, base, published"):
        recipes.get("rtn", preset="fast")


@pytest.mark.parametrize(
    ("name", "overrides", "says"),
    [
        ("apiq", {"epochs": 0}, "every stage has 0 epochs"),
        ("apiq", {"rank": 0, "lr_clipping": 0}, "'output' has nothing to learn"),
        ("apiq", {"lr": 0}, "'output' has nothing to learn"),
        ("sapr", {"lr_clipping": 0}, "'mixed' compares weights before the adapter"),
        ("sapr", {"saliency_quantile": 1.0}, "saliency_quantile"),
        ("sapr", {"saliency_scale": "median"}, "'mean'"),
        ("sapr-sw", {"projections": 0}, "projections"),
        ("sapr-sw", {"stages.0.sliced_wasserstein.weight": 1}, "weight"),
        ("apiq", {"granularity": "head"}, "'linear'"),
        ("db-llm", {"spec.bits": 3}, "2 bits"),
        ("db-llm", {"mixed": "*.down_proj:w4g64"}, "2 bits"),
    ],
)
def test_what_could_not_work_is_refused_before_any_work(name: str, overrides: dict[str, object], says: str) -> None:
    with pytest.raises(SalqError, match=says) as caught:
        recipes.get(name, overrides=overrides)
    assert "\n" not in str(caught.value)


def test_a_stage_of_weights_alone_has_no_share_of_an_output_loss() -> None:
    with pytest.raises(ValueError, match="give it an objective"):
        Fit(name="weight", objective=None, regularizer=WeightPreservation(), sliced_wasserstein=SlicedWasserstein())


def test_a_penalty_that_nothing_can_change_is_refused_with_min_max() -> None:
    values = recipes.get("sapr").model_dump()
    with pytest.raises(ValueError, match="use after_lora"):
        Recipe.model_validate({**values, "quantizer": {"kind": "min_max"}})


def test_published_stages_are_those_of_the_released_code() -> None:
    recipe = recipes.get("sapr-staged", preset="published")
    assert [(stage.name, stage.epochs) for stage in recipe.stages] == [("weight", 15), ("mixed", 0), ("output", 5)]
    assert [stage.name for stage in recipe.active_stages] == ["weight", "output"]
    assert recipe.optimizer_state == "kept"


def test_the_published_script_has_sliced_wasserstein() -> None:
    (stage,) = recipes.get("sapr-sw", preset="published").stages
    assert stage.sliced_wasserstein == SlicedWasserstein(weight=0.02, projections=1024, scaled=True)
    assert stage.model_copy(update={"sliced_wasserstein": None}) == recipes.get("sapr", preset="published").stages[0]


def test_optional_settings_have_the_control_of_their_type() -> None:
    found = {field.path: field for field in recipes.fields(recipes.get("sapr"))}
    assert found["stages.0.regularizer.saliency_quantile"].kind == "text"  # a number field would show 0
    assert found["stages.0.regularizer.saliency_scale"].choices == ("mean",)
    assert found["granularity"].choices == ("linear",)
    assert found["mixed"].kind == "text"
    assert found["spec.group_size"].kind == "integer"


def test_a_recipe_that_can_learn_nothing_is_refused() -> None:
    values = recipes.get("apiq").model_dump()
    with pytest.raises(ValueError, match="nothing to learn"):
        Recipe.model_validate({**values, "quantizer": {"kind": "min_max"}, "adapter": None})
    with pytest.raises(ConfigError, match="batch_size"):
        recipes.get("apiq", overrides={"batch_size": 0})
