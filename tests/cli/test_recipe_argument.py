from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

import lesionforge as lf
from lesionforge.cli.recipe_argument import built_in_recipes, default_output, read_setting, with_settings
from lesionforge.core.chain import write_value
from lesionforge.core.errors import ConfigError
from lesionforge.core.recipe import Synthesis

VALUES = st.one_of(
    st.booleans(),
    st.integers(-(2**60), 2**60),
    st.floats(allow_nan=False, allow_infinity=False),
    st.text(st.characters(blacklist_categories=["Cs"]), max_size=20),
    st.lists(st.integers(0, 9), max_size=4),
)


@given(VALUES)
def test_a_setting_written_as_toml_is_read_as_such(value):
    assert read_setting(write_value(value), "a.b") == value


@given(
    st.from_regex(r"[a-z][a-z0-9:/._-]*", fullmatch=True).filter(
        lambda word: word not in ("true", "false", "inf", "nan")
    )
)
def test_a_bare_word_is_text(word):
    assert read_setting(word, "a.b") == word


@pytest.mark.parametrize("written", ["[1, 2", '"open', "{a=1", "'", ""])
def test_half_a_value_is_an_error(written):
    with pytest.raises(ConfigError, match=r"--set a\.b"):
        read_setting(written, "a.b")


@given(st.text(max_size=100))
def test_a_run_folder_lies_below_runs_whatever_the_recipe_is_called(name):
    output = default_output(lf.Recipe(name=name))
    assert output.parent == Path("runs") and len(output.parts) == 2
    assert output.name not in ("", ".", "..") and output.name.isprintable()


def test_options_come_before_settings_and_none_is_no_option():
    recipe = lf.Recipe(synthesis=Synthesis(lf.Chain.parse("phantom(size=64)")))
    changed = with_settings(
        recipe,
        {"synthesis.count": 5, "seed": None, "synthesis.batch_size": 2},
        ["synthesis.count=6", "phantom.size=32"],
    )
    assert (changed.synthesis.count, changed.synthesis.batch_size, changed.seed) == (6, 2, 0)
    assert str(changed.synthesis.chain) == "phantom(size=32)"
    assert recipe.synthesis.count == 64


def test_an_option_for_cases_needs_a_recipe_that_makes_some():
    with pytest.raises(ConfigError, match="--count: recipe 'x' has no"):
        with_settings(lf.Recipe(name="x"), {"synthesis.count": 5}, [])


@pytest.mark.parametrize("name", sorted(built_in_recipes()))
def test_built_in_recipes_are_valid(name):
    recipe = lf.Recipe.load(built_in_recipes()[name]).resolved()
    assert lf.Recipe.from_toml(recipe.to_toml()).to_toml() == recipe.to_toml()
    assert recipe.description
