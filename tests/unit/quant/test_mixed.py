"""Mixed bits: rules from text, the first that fits wins, sizes count each matrix at its own width."""

import pytest
from pydantic import ValidationError

from salq import recipes
from salq.calibration.recipe import Recipe
from salq.core.errors import ConfigError, SalqError, ShapeError
from salq.models.catalogue import CATALOGUE
from salq.models.shapes import linear_shapes
from salq.quant.mixed import SpecRule, check_group_sizes, check_rules, grids, rules_of
from salq.quant.size import size_report
from salq.quant.spec import QuantSpec

SHAPES = {"0.self_attn.q_proj": (64, 64), "0.mlp.down_proj": (64, 128), "1.mlp.down_proj": (64, 128)}


@pytest.mark.parametrize("tag", ["w2g64", "w3row", "w4g32-sym", "w8g576"])
def test_a_tag_reads_back(tag: str) -> None:
    assert QuantSpec.from_tag(tag).tag == tag


@pytest.mark.parametrize("tag", ["w5g64", "2g64", "w2", "w2g1", "w2g64-asym", ""])
def test_what_is_not_a_tag_is_refused(tag: str) -> None:
    with pytest.raises(ConfigError, match="w2g64"):
        QuantSpec.from_tag(tag)


def test_the_first_rule_that_fits_wins() -> None:
    rules = rules_of("0.mlp.down_proj:w8g32, *.down_proj:w4g64")
    found = grids(QuantSpec(bits=2, group_size=32), rules, SHAPES)
    assert [found[name].tag for name in SHAPES] == ["w2g32", "w8g32", "w4g64"]


def test_each_matrix_counts_at_its_own_width() -> None:
    recipe = recipes.get("rtn", bits=2, group_size=32, overrides={"mixed": "*.down_proj:w4g32"})
    mixed = recipe.size(SHAPES, 100_000)
    parts = [size_report(recipe.specs(SHAPES)[name], {name: shape}, 100_000) for name, shape in SHAPES.items()]
    assert mixed.size_mb == pytest.approx(sum(part.size_mb for part in parts))
    assert recipe.size({"0.self_attn.q_proj": (64, 64)}, 100_000).bits_per_weight == pytest.approx(2 + 18 / 32)
    assert recipe.spec_of(1, "mlp.down_proj").bits == 4


def test_no_rules_is_the_uniform_size() -> None:
    recipe, shapes = recipes.get("apiq", bits=3), linear_shapes(CATALOGUE["smollm2-135m"].config)
    assert recipe.size(shapes, 134_515_008) == size_report(recipe.spec, shapes, 134_515_008, recipe.rank)


def test_json_round_trip_and_the_command_line() -> None:
    recipe = recipes.get("apiq", bits=2, overrides={"mixed": "*.down_proj:w4g64 0.*:w8g64"})
    assert recipe.mixed is not None
    assert recipe.mixed[1] == SpecRule(pattern="0.*", spec=QuantSpec(bits=8, group_size=64))
    assert Recipe.model_validate_json(recipe.model_dump_json()) == recipe
    assert recipes.get("apiq", bits=2, overrides={"mixed": ""}) == recipes.get("apiq", bits=2)
    assert recipes.get("apiq", bits=2, overrides={"mixed": "none"}) == recipes.get("apiq", bits=2)


@pytest.mark.parametrize("text", ["down_proj", ":w4g64", "*.down_proj:w7g64", "*.down_proj:"])
def test_bad_rules_are_one_sentence(text: str) -> None:
    with pytest.raises(SalqError, match=r"mixed.*PATTERN:GRID|mixed.*w2g64") as caught:
        recipes.get("apiq", overrides={"mixed": text})
    assert "\n" not in str(caught.value)


def test_a_rule_for_nothing_is_refused() -> None:
    with pytest.raises(ConfigError, match=r"'\*\.dwn_proj'.*1\.mlp\.down_proj"):
        check_rules(rules_of("*.dwn_proj:w4g64"), SHAPES)


def test_a_group_size_is_checked_where_it_applies() -> None:
    specs = grids(QuantSpec(bits=2, group_size=64), rules_of("0.mlp.*:w4g96"), SHAPES)
    with pytest.raises(ShapeError, match=r"0\.mlp\.down_proj: in_features 128 .*group size 96"):
        check_group_sizes(specs, SHAPES)


def test_patterns_are_not_empty() -> None:
    with pytest.raises(ValidationError):
        SpecRule(pattern="", spec=QuantSpec())
