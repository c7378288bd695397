from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionforge.core.chain import Chain, StageSpec
from lesionforge.core.errors import ConfigError, LesionforgeError
from lesionforge.core.recipe import DataSettings, Job, Recipe, Synthesis

texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts)
keys = st.from_regex(r"[a-z][a-z0-9_]{0,8}", fullmatch=True).filter(lambda key: key not in ("use", "on"))
plugins = st.from_regex(r"[a-z][a-z0-9-]{0,8}", fullmatch=True)
settings = st.dictionaries(keys, st.one_of(scalars, st.lists(scalars, max_size=3)), max_size=3)
chains = st.lists(st.builds(StageSpec, plugins, settings), min_size=1, max_size=3).map(lambda s: Chain(tuple(s)))
synthesis = st.builds(Synthesis, chains, st.integers(1, 10**6), st.integers(1, 64), st.integers(1, 64))
jobs = st.builds(Job, st.from_regex(r"job[a-z0-9+-]{1,8}", fullmatch=True), plugins, st.just(("real",)), settings)
recipes = st.builds(
    Recipe,
    name=texts,
    description=texts,
    seed=st.integers(0, 2**63 - 1),
    data=st.builds(DataSettings, source=st.none() | texts, size=st.none() | st.integers(8, 512)),
    jobs=st.lists(jobs, max_size=2, unique_by=lambda job: job.name).map(tuple),
    synthesis=synthesis,
    metrics=st.lists(st.builds(StageSpec, plugins, settings), max_size=2).map(tuple),
)

SMALL = """
seed = 3
[data]
size = 16
[train.first]
use = "mean"
[train.second]
use = "mean"
on = ["real", "synthetic"]
start = "train:first"
[[stage]]
use = "blobs"
size = 16
[[stage]]
use = "threshold"
[[metric]]
use = "gap"
[[metric]]
use = "gap"
weights = "train:first"
"""


@given(recipes)
def test_a_recipe_survives_being_written_as_toml(recipe):
    assert Recipe.from_toml(recipe.to_toml()) == recipe


@given(texts)
def test_any_text_is_a_recipe_or_a_config_error(text):
    try:
        Recipe.from_toml(text)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_expression_and_recipe_mean_the_same():
    expression = 'blobs(size=16, label="nevus") | threshold(level=0.25)'
    recipe = Recipe(synthesis=Synthesis(Chain.parse(expression)))
    again = Recipe.from_toml(recipe.to_toml())
    assert again.synthesis is not None and str(again.synthesis.chain) == expression


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("blobs.size", 4, lambda r: r.synthesis.chain.stages[0].values["size"]),
        ("second.steps", 9, lambda r: r.jobs[1].values["steps"]),
        ("synthesis.count", 5, lambda r: r.synthesis.count),
        ("data.size", 32, lambda r: r.data.size),
        ("seed", 8, lambda r: r.seed),
        ("gap-2.level", 0.5, lambda r: r.metrics[1].values["level"]),
    ],
)
def test_one_value_is_replaced(path, value, read):
    assert read(Recipe.from_toml(SMALL).with_value(path, value)) == value


def test_defaults_are_written_out(registry):
    resolved = Recipe.from_toml(SMALL).resolved(registry)
    assert resolved.synthesis is not None
    assert resolved.synthesis.chain.stages[0].values == {"size": 16, "label": "nevus"}
    assert resolved.resolved(registry) == resolved == Recipe.from_toml(resolved.to_toml())


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("seed = 3", "sead = 3"), "unknown key 'sead'"),
        (lambda t: t.replace("seed = 3", "seed = -3"), "seed = -3"),
        (lambda t: t.replace('use = "blobs"', ""), "[[stage]] number 1: key 'use' is required"),
        (lambda t: t.replace('"real", "synthetic"', '"fake"'), 'must be a list of "real" and "synthetic"'),
        (lambda t: t.replace("train.first", 'train."../first"'), "the name becomes a folder"),
        (lambda t: t.replace("train.first", "train.blobs"), "names both a stage and a training"),
        (lambda t: t.replace("train:first", "train:third"), "names no training that runs before it; there are first"),
        (lambda t: t.replace("[[stage]]", "[[stage"), "is no valid TOML"),
        (lambda t: t[: t.index("[[stage]]")], "there is no [[stage]]"),
        (lambda t: t.replace('use = "gap"', "", 1), "[[metric]] number 1: key 'use' is required"),
        (lambda t: t.replace('"gap"', '"gaps"', 1), "no metric is called 'gaps'"),
        (lambda t: t + "size = 3", "metric gap: unknown key 'size'"),
        (lambda t: t.replace('weights = "train:first"', 'weights = "train:second"'), "no training that runs before it"),
        (lambda t: 'name = "x"\n' + t[t.index("[[metric]]") :], "[[metric]] measures synthetic cases but there is no"),
    ],
)
def test_a_wrong_recipe_is_one_clear_line(registry, change, said):
    with pytest.raises(LesionforgeError) as caught:
        Recipe.from_toml(change(SMALL)).resolved(registry)
    assert said in str(caught.value) and "\n" not in str(caught.value)


def test_a_missing_recipe_and_an_unknown_place_are_named(tmp_path):
    with pytest.raises(ConfigError, match="No such file"):
        Recipe.load(tmp_path / "none.toml")
    with pytest.raises(ConfigError, match="there are data, synthesis, blobs, threshold, first, second, gap, gap-2"):
        Recipe.from_toml(SMALL).with_value("blob.size", 3)
