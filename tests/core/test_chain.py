from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionforge.core.chain import Chain, StageSpec, parse_call, read_value, write_value
from lesionforge.core.errors import ConfigError, PluginError

names = st.from_regex(r"[a-z][a-z0-9]{0,6}(-[a-z0-9]{1,4})?", fullmatch=True)
keys = st.from_regex(r"[a-z_][a-z0-9_]{0,8}", fullmatch=True)
texts = st.text(st.characters(exclude_categories=("Cs",)), max_size=20)
scalars = st.one_of(st.booleans(), st.integers(-(2**63), 2**63 - 1), st.floats(allow_nan=False), texts)
values = st.recursive(scalars, lambda inner: st.lists(inner, max_size=3), max_leaves=5)
stages = st.builds(StageSpec, names, st.dictionaries(keys, values, max_size=4))
chains = st.lists(stages, min_size=1, max_size=4).map(lambda items: Chain(tuple(items)))


@given(chains)
def test_what_is_written_reads_back_equal(chain):
    assert Chain.parse(str(chain)) == chain


@given(values)
def test_values_survive_being_written(value):
    assert read_value(write_value(value), where="test") == value


@given(texts)
def test_any_text_is_a_chain_or_a_config_error(text):
    try:
        Chain.parse(text)
    except ConfigError as error:
        assert "\n" not in str(error)


def test_signs_inside_quotes_do_not_end_a_value():
    chain = Chain.parse("""a(x="p|q), (", y='\\', z=["|", ")"]) | b""")
    assert chain.stages == (StageSpec("a", {"x": "p|q), (", "y": "\\", "z": ["|", ")"]}), StageSpec("b"))


@pytest.mark.parametrize(
    ("expression", "said"),
    [
        ("", "expected a plugin's name, found 'the end'"),
        ("a |", "expected a plugin's name, found 'the end'"),
        ("a b", "expected '|' or the end, found 'b'"),
        ("a(x=)", "'' is no value"),
        ("a(x=nevus)", "'nevus' is no value; write numbers"),
        ("a(x=1, x=2)", "is given 'x' twice"),
        ("a(x 1)", "expected '='"),
        ("a(x=1", "expected ',' or ')'"),
        ("a(x=[1, 2)", "is no value"),
        ("a(x=1\ny=2)", "is no value"),
    ],
)
def test_a_malformed_chain_says_where(expression, said):
    with pytest.raises(ConfigError, match="chain") as caught:
        Chain.parse(expression)
    assert said in str(caught.value)


def test_second_use_of_a_plugin_gets_a_key_of_its_own():
    chain = Chain.parse("blobs | threshold | threshold(level=0.2)")
    assert chain.keys == ("blobs", "threshold", "threshold-2")
    assert chain.with_value("threshold-2", "level", 0.9).stages[2].values == {"level": 0.9}
    with pytest.raises(ConfigError, match="no stage is called 'theshold'"):
        chain.with_value("theshold", "level", 1)


@pytest.mark.parametrize(
    ("expression", "error", "said"),
    [
        ("nowhere", PluginError, "no generator or annotator or filter is called 'nowhere'; there are blobs"),
        ("mean", PluginError, "no generator or annotator or filter is called 'mean'"),
        ("blobs(sise=3)", ConfigError, "stage blobs: unknown key 'sise'; allowed are size, label"),
        ("blobs(size=1)", ConfigError, "stage blobs: size = 1: input should be greater than or equal to 2"),
        ('blobs(size="big")', ConfigError, "stage blobs: size = 'big': input should be a valid integer"),
        ("blobs | threshold(level=7)", ConfigError, "stage threshold: level = 7"),
    ],
)
def test_a_wrong_configuration_names_stage_key_and_what_is_allowed(registry, expression, error, said):
    with pytest.raises(error) as caught:
        Chain.parse(expression).configs(registry)
    assert said in str(caught.value)


def test_data_specifications_carry_a_location():
    assert parse_call("isic2018:/a b/ü:c") == ("isic2018", {}, "/a b/ü:c")
    assert parse_call('folder(split_file="x:y"):.') == ("folder", {"split_file": "x:y"}, ".")
    assert parse_call("phantom(count=3)") == ("phantom", {"count": 3}, None)
    with pytest.raises(ConfigError, match="nothing stands behind the colon"):
        parse_call("folder:")
