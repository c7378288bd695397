from __future__ import annotations

import itertools
import json
from importlib.metadata import version

import pytest
import torch
from pydantic import Field
from torch import nn

import lesionforge as lf
from lesionforge.core.architectures import (
    default_parameter_count,
    find_architecture,
    parameter_count,
    written_architecture,
)
from lesionforge.core.recipe import Job
from lesionforge.testing import assert_contract, contract_rules, disc_dataset


class Line(lf.Architecture):
    """One convolution."""

    name = "line"

    class Config(lf.PluginConfig):
        width: int = Field(3, ge=1, description="edge of its kernel")
        tags: tuple[str, ...] = Field((), description="words that change nothing")

    @property
    def stride(self):
        return 4

    def build(self):
        return nn.Conv2d(3, 1, self.config.width, padding="same")


class Wordy(Line):
    """Needs a word."""

    name = "wordy"

    class Config(lf.PluginConfig):
        word: str = Field(description="a word")


class Student(lf.Trainer):
    """Trains a network by its name."""

    name = "student"

    class Config(lf.PluginConfig):
        network: str = Field("line", description="network to train")

    @classmethod
    def uses(cls, config, registry):
        return [find_architecture(config.network, registry)[0]]

    def train(self, train, val, output):
        self.context.progress(1, 1, {})


@pytest.fixture
def registry(toys):
    return toys.toy_registry(toys.entry_point("nets", lambda: toys.module([Line, Wordy, Student]), "toy-networks"))


def test_an_expression_names_a_network_and_its_values(registry):
    entry, architecture = find_architecture('line(width=5, tags=["a|b", "c)"])', registry)
    assert entry.distribution == "toy-networks"
    assert (architecture.config.width, architecture.config.tags) == (5, ("a|b", "c)"))
    again = find_architecture(written_architecture(architecture), registry)[1]
    assert again.config == architecture.config
    assert written_architecture(find_architecture("line", registry, given={"width": 7})[1]) == "line(width=7, tags=[])"
    assert parameter_count(architecture.build()) == 3 * 25 + 1


@pytest.mark.parametrize(
    ("expression", "given", "message"),
    [
        ("vnet", {}, "no architecture is called 'vnet'; there are line, wordy"),
        ("mean", {}, "no architecture is called 'mean'"),
        ("line(", {}, "expected a key"),
        ("line:x", {}, r"write NAME or NAME\(key=value"),
        ("line | line", {}, "column 6"),
        ("line(width=0)", {}, "architecture line: width = 0: .*greater than or equal to 1"),
        ("line(depth=1)", {}, "unknown key 'depth'; allowed are width, tags"),
        ("line(width=5)", {"width": 3}, "width is given twice"),
        ("wordy", {"width": 3}, "width applies to line, not to wordy"),
        ("line", {"depth": 3}, "depth applies to no architecture, not to line"),
        ("wordy", {}, "key 'word' is required"),
    ],
)
def test_mistakes_are_one_line(registry, expression, given, message):
    with pytest.raises(lf.LesionforgeError, match=message) as caught:
        find_architecture(expression, registry, given=given)
    assert "\n" not in str(caught.value)


def test_a_configuration_is_held_against_the_plugins_it_names_before_any_work(registry):
    registry.create("trainer", "student", {"network": "line(width=5)"}, where="student")
    with pytest.raises(lf.PluginError, match="training first: no architecture is called 'vnet'"):
        registry.configured(Student, {"network": "vnet"}, where="training first")
    with pytest.raises(lf.ConfigError, match="training first: architecture line: width = 0"):
        registry.configured(Student, {"network": "line(width=0)"}, where="training first")


def test_the_version_of_a_network_that_a_training_names_is_recorded(toys, tmp_path):
    owner = "pluggy"  # a distribution that is surely installed
    registry = toys.toy_registry(
        toys.entry_point("student", lambda: toys.module([Student])),
        toys.entry_point("nets", lambda: toys.module([Line]), owner),
    )
    recipe = lf.Recipe(jobs=(Job("first", "student", ("real",), {"network": "line(width=5)"}),))
    recipe.run(output=tmp_path / "run", data=disc_dataset(6, 8), registry=registry, report=False)
    (facts,) = (json.loads(file.read_text()) for file in tmp_path.rglob("job.json"))
    assert facts["versions"][owner] == version(owner)


def test_parameters_are_counted_with_the_defaults(registry):
    state = torch.get_rng_state()
    assert default_parameter_count(registry.find("line")) == 28
    assert default_parameter_count(registry.find("wordy")) is None
    assert torch.equal(state, torch.get_rng_state())


def test_a_good_network_keeps_its_contract(registry):
    assert_contract("line(width=5)", registry=registry)


class Coarse(nn.Conv2d):
    def forward(self, images):
        return super().forward(images)[..., ::2, ::2]


class Crowd(nn.Conv2d):
    def forward(self, images):
        return super().forward(images - images.mean())


class Dropped(nn.Conv2d):
    def forward(self, images):
        return super().forward(nn.functional.dropout(images, 0.5, training=True))


class Idle(nn.Conv2d):
    def __init__(self, *shape):
        super().__init__(*shape)
        self.spare = nn.Parameter(torch.zeros(1))


class Unsaved(nn.Conv2d):
    def __init__(self, *shape):
        super().__init__(*shape)
        self.shift = torch.rand(1)

    def forward(self, images):
        return super().forward(images) + self.shift


class Rigid(nn.Conv2d):
    def forward(self, images):
        logits = super().forward(images)
        assert logits.dtype == torch.float32
        return logits


class Flat(nn.Conv2d):
    def encode(self, images):
        return [self(images).flatten(1)]


class Lossy(nn.Conv2d):
    def training_loss(self, outputs, masks, loss):
        return outputs


class Fickle(nn.Conv2d):
    def __init__(self, *shape):
        super().__init__(*shape)
        self.weight.data += torch.rand((), generator=torch.Generator().manual_seed(next(NUMBERS)))


NUMBERS = itertools.count()


class Endless(nn.Conv2d):
    def forward(self, images):
        return super().forward(images) / 0


@pytest.mark.parametrize(
    ("network", "rule"),
    [
        (Coarse, "one logit a pixel"),
        (Endless, "one logit a pixel"),
        (Fickle, "the same random state builds the same network"),
        (Crowd, "evaluation is repeatable and knows no neighbours"),
        (Dropped, "evaluation is repeatable and knows no neighbours"),
        (Idle, "training reaches every parameter"),
        (Lossy, "training reaches every parameter"),
        (Rigid, "runs channels last under bf16 autocast"),
        (Unsaved, "weights survive being saved"),
        (Flat, "encoder maps are maps"),
    ],
)
def test_every_rule_catches_who_breaks_it(toys, network, rule):
    class Bad(Line):
        """Builds a bad network."""

        name = "bad"

        def build(self):
            return network(3, 1, 1)

    registry = toys.toy_registry(toys.entry_point("bad", lambda: toys.module([Bad])))
    broken = set()
    for clause in contract_rules("bad", registry=registry):
        try:
            clause.check()
        except (AssertionError, lf.LesionforgeError):
            broken.add(clause.name)
    assert rule in broken
