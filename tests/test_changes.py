"""`--set`: a recipe's values changed from the command line, and refused where there is nothing to change."""

from pathlib import Path
from typing import Any

import pytest
import yaml

from xvla_platform.errors import XvlaError
from xvla_platform.modelling.named import resolve_config
from xvla_platform.specs.changes import with_changes
from xvla_platform.specs.recipe import load_recipe

FILE = Path(__file__).parents[1] / "xvla_platform" / "bases" / "xvla-tiny" / "recipe.yaml"
DATA: dict[str, Any] = {"a": {"b": [{"c": 1}, {"c": 2}]}, "d": 3}


def test_changes_are_made_in_order_and_the_rest_stays() -> None:
    found = with_changes(DATA, ["a.b[1].c=5", "d={e: [1, 2]}", "d.e[0]=null", "a.f=yes"], "x.yaml")
    assert found == {"a": {"b": [{"c": 1}, {"c": 5}], "f": True}, "d": {"e": [None, 2]}}
    assert DATA == {"a": {"b": [{"c": 1}, {"c": 2}]}, "d": 3}


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("a.b", "is no change; found a.b; allowed: FIELD=VALUE"),
        ("a..b=1", "is no change"),
        ("a.b[2].c=1", r"found a.b\[2\]; allowed: \[0\] to \[1\]"),
        ("a.x.c=1", "found a.x; allowed: b"),
        ("d.x=1", "found d.x; allowed: a value without fields"),
        ("d=[1", "not valid YAML"),
        ("d=2024-13-45", "not valid YAML"),
    ],
)
def test_what_is_no_change_is_refused(change: str, words: str) -> None:
    with pytest.raises(XvlaError, match=words):
        with_changes(DATA, [change], "x.yaml")


def test_the_kept_recipe_makes_the_same_base_again(tmp_path: Path) -> None:
    """What is written beside the weights states every change, and needs none."""
    changes = ["name=heads", "model.strategy=action_heads", "phases[1].stage.steps=70", "description=on\n\n  two lines"]
    recipe, text = load_recipe(FILE, changes)
    assert (recipe.name, recipe.phases[1].stage.steps) == ("heads", 70)
    assert resolve_config(recipe.model, FILE)["strategy"] == "action_heads"
    (tmp_path / "recipe.yaml").write_text(text)
    assert load_recipe(tmp_path / "recipe.yaml")[0] == recipe
    assert yaml.safe_load(text)["seed"] == yaml.safe_load(FILE.read_text())["seed"]


def test_without_changes_the_recipe_is_kept_as_written() -> None:
    assert load_recipe(FILE)[1] == FILE.read_text()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ("phases[1].stage.step=20", "unknown field"),
        ("name=../elsewhere", "name: String should match"),
        ("image_size=[-1, 0]", "image_size.*greater than or equal to 1"),
        ("phases[1].mixture.panda=.nan", "panda: Input should be a finite number"),
    ],
)
def test_a_value_that_cannot_be_is_named(change: str, words: str) -> None:
    with pytest.raises(XvlaError, match=words):
        load_recipe(FILE, [change])
