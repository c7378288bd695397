"""Mistakes that must show before any work, each as one line and with nothing created."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image
from pydantic import Field

import lesionforge as lf
from lesionforge.core.chain import Chain, StageSpec, read_value
from lesionforge.core.config import ExtractorName
from lesionforge.core.decoding import decode_image
from lesionforge.core.errors import CheckpointError, ConfigError, DataError, PluginError, first_line
from lesionforge.core.loading import absolute_source
from lesionforge.core.recipe import Job, Recipe, Synthesis
from lesionforge.core.registry import Registry


@pytest.mark.parametrize(
    ("setting", "value"), [("count", 0), ("seed", -1), ("shard_size", 0), ("batch_size", 0), ("precision", "fp16")]
)
def test_settings_from_python_are_checked_like_those_of_a_file(tmp_path, registry, setting, value):
    settings = {"count": 4, setting: value}
    with pytest.raises(ConfigError, match=f"{setting} = {value!r}"):
        Chain.parse("blobs").run(output=tmp_path / "run", registry=registry, **settings)
    assert not (tmp_path / "run").exists()


@given(st.integers(4301, 6000), st.sampled_from(["", "-", "0x"]))
def test_numbers_too_long_to_read_or_write_are_config_errors(digits, sign):
    written = f"{sign}{'1' * digits}"
    with pytest.raises(ConfigError):
        Recipe.from_toml(f'[[stage]]\nuse = "blobs"\nsize = {written}').to_toml()
    with pytest.raises(ConfigError):
        str(StageSpec("blobs", {"size": read_value(written, where="test")}))


@given(st.integers(2000, 20000))
def test_nesting_too_deep_is_a_config_error(depth):
    written = "[" * depth + "]" * depth
    with pytest.raises(ConfigError):
        read_value(written, where="test")
    with pytest.raises(ConfigError):
        Recipe.from_toml(f"value = {written}")


def test_a_number_that_a_plugin_refuses_may_be_too_long_to_show(registry):
    with pytest.raises(ConfigError, match="stage blobs: size = this int"):
        Chain((StageSpec("blobs", {"size": 10**5000}),)).configs(registry)


def test_a_value_that_would_be_read_back_as_another_is_refused(toys):
    class Optional(lf.Generator):
        """Has a default other than None."""

        name = "optional"

        class Config(lf.PluginConfig):
            size: int | None = Field(8, description="edge in pixels, None for any")

        def generate(self, batch):
            return batch

    registry = toys.toy_registry(toys.entry_point("optional", lambda: toys.module([Optional])))
    recipe = Recipe(synthesis=Synthesis(Chain((StageSpec("optional", {"size": None}),))))
    with pytest.raises(ConfigError, match=r"stage optional: size = None cannot be written in a recipe, .* say 8"):
        recipe.resolved(registry)


def test_an_unknown_extractor_shows_when_the_chain_is_configured(toys):
    class Gate(lf.Annotator):
        """Uses an extractor."""

        name = "gate"

        class Config(lf.PluginConfig):
            extractor: ExtractorName | None = Field(None, description="extractor plugin")

        def annotate(self, batch):
            return batch

    registry = toys.toy_registry(toys.entry_point("gate", lambda: toys.module([Gate])))
    assert Chain.parse("gate").configs(registry)
    with pytest.raises(PluginError, match="stage gate: extractor: no extractor is called 'colors'"):
        Chain.parse('gate(extractor="colors")').configs(registry)


@pytest.mark.parametrize("place", ["./nowhere", "/nowhere/at/all"])
def test_a_local_checkpoint_that_is_not_there_shows_before_training(registry, place):
    with pytest.raises(CheckpointError, match=f"training a: start = '{place}' does not exist"):
        Recipe(jobs=(Job("a", "mean", values={"start": place}),)).resolved(registry)
    assert Recipe(jobs=(Job("a", "mean", values={"start": "hub/name"}),)).resolved(registry)


@pytest.mark.parametrize("names", [["../out"], ["data"], ["twice", "twice"]])
def test_names_of_trainings_from_python_are_checked(registry, names):
    with pytest.raises(ConfigError):
        Recipe(jobs=tuple(Job(name, "mean") for name in names)).resolved(registry)


def test_precision_of_trainings_without_a_chain_is_kept(registry):
    recipe = Recipe(jobs=(Job("a", "mean"),)).with_value("precision", "fp32")
    assert Recipe.from_toml(recipe.to_toml()).training_precision == "fp32"
    chain = Recipe(synthesis=Synthesis(Chain.parse("blobs"), precision="bf16"))
    assert chain.training_precision == "bf16"
    with pytest.raises(ConfigError, match=r"--set precision: precision belongs into \[synthesis\]"):
        chain.with_value("precision", "fp32")


def test_a_plugin_that_ends_the_program_or_registers_rubbish_leaves_nothing_behind(toys):
    def quits():
        raise SystemExit(3)

    heard = []
    hook = lf.hookimpl(lambda cases, kept: heard.append(cases))
    rubbish = SimpleNamespace(register_plugins=lf.hookimpl(lambda: [toys.Blobs, object()]), batch_done=hook)
    points = [toys.entry_point("quits", quits), toys.entry_point("rubbish", lambda: rubbish)]
    registry = Registry(points)
    assert {broken.entry_point for broken in registry.broken} == {"quits", "rubbish"}
    assert not registry.entries()
    registry.hooks.hook.batch_done(cases=1, kept=1)
    assert not heard


@pytest.mark.parametrize("suffix", ["tiff", "gif", "png", "bmp", "jpeg", "webp"])
def test_damaged_images_of_any_format_are_data_errors(tmp_path, suffix):
    file = tmp_path / f"image.{suffix}"
    Image.linear_gradient("L").convert("RGB").resize((24, 24)).save(file)
    whole = file.read_bytes()
    for cut in range(0, min(len(whole), 400), 3):
        for damaged in (whole[:cut], whole[:cut] + bytes([whole[cut] ^ 0xFF]) + whole[cut + 1 :]):
            file.write_bytes(damaged)
            try:
                decode_image(file, 8)
            except DataError as error:
                assert str(error).isprintable()


def test_a_path_that_no_recipe_could_name_is_refused():
    with pytest.raises(ConfigError, match="cannot be found again by this name"):
        absolute_source("folder:/data/caf\udce9")


@pytest.mark.parametrize(
    ("error", "line"), [(ValueError("\n one\ntwo"), "one"), (EOFError(), "EOFError"), (OSError("\n"), "OSError")]
)
def test_the_first_line_of_an_error(error, line):
    assert first_line(error) == line
