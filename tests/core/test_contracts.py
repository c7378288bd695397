from __future__ import annotations

import pytest
import torch

import lesionforge as lf
from lesionforge.core.errors import ConfigError
from lesionforge.testing import assert_contract, contract_rules

TOYS = ["blobs(size=16)", "threshold(level=0.4)", "brightness", "mean"]


@pytest.mark.parametrize("expression", TOYS)
def test_good_plugins_keep_their_contract(registry, expression):
    assert_contract(expression, registry=registry)


def broken_registry(toys, plugin):
    return toys.toy_registry(toys.entry_point("bad", lambda: toys.module([plugin])))


def broken_rules(expression, registry):
    broken = set()
    for rule in contract_rules(expression, registry=registry):
        try:
            rule.check()
        except (AssertionError, lf.LesionforgeError):
            broken.add(rule.name)
    return broken


class Noise(lf.Generator):
    """Draws from the global generator."""

    name = "noise"

    def generate(self, batch):
        return batch.with_columns(images=torch.rand(len(batch), 3, 8, 8))


class Crowd(lf.Generator):
    """Lets neighbours leak into a case."""

    name = "crowd"

    def generate(self, batch):
        own = torch.tensor([seed % 1000 / 1000 for seed in batch.seeds])
        return batch.with_columns(images=(own * 0.5 + own.mean() * 0.5).view(-1, 1, 1, 1).expand(-1, 3, 8, 8))


class Loud(lf.Generator):
    """Leaves the range of images."""

    name = "loud"

    def generate(self, batch):
        return batch.with_columns(images=torch.full((len(batch), 3, 8, 8), 255.0))


class Mute(lf.Filter):
    """Rejects without a score."""

    name = "mute"

    def screen(self, batch):
        return batch


class Scribbler(lf.Annotator):
    """Writes into its input."""

    name = "scribbler"

    def annotate(self, batch):
        batch.images.mul_(0.5)
        return batch.with_columns(masks=(batch.images[:, :1] > 0.2).float())


class Forgetful(lf.Trainer):
    """Starts again after every interruption, with other noise."""

    name = "forgetful"

    def train(self, train, val, output):
        from safetensors.torch import save_file

        for step in range(6):
            self.context.progress(step, 6, {})
        save_file({"w": torch.rand(3)}, output / "model.safetensors")


@pytest.mark.parametrize(
    ("plugin", "rule"),
    [
        (Noise, "same seeds, same bits"),
        (Noise, "global random state is left alone"),
        (Crowd, "neighbours do not matter"),
        (Crowd, "batch size matters only within tolerance"),
        (Loud, "fills content within range"),
        (Mute, "every rejection names plugin, score and threshold"),
        (Scribbler, "does not mutate its input"),
        (Forgetful, "killed and resumed equals uninterrupted"),
    ],
)
def test_every_rule_catches_who_breaks_it(toys, plugin, rule):
    registry = broken_registry(toys, plugin)
    assert rule in broken_rules(plugin.name, registry)
    with pytest.raises(AssertionError, match=f"{plugin.name} breaks the contract of its role: .*{rule}"):
        assert_contract(plugin.name, registry=registry)


def test_undocumented_configuration_is_caught(toys):
    class Terse(toys.Blobs):
        """Has an unexplained key."""

        name = "terse"

        class Config(lf.PluginConfig):
            size: int = 8
            label: str = "nevus"

    assert broken_rules("terse", broken_registry(toys, Terse)) == {"every config key has a description"}


def test_a_wrong_expression_is_refused_before_any_rule(registry):
    with pytest.raises(ConfigError):
        assert_contract("blobs(size=", registry=registry)
