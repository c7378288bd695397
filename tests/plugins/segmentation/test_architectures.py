"""Networks of others: a plugin of the role architecture is trained, published, used again, and missed."""

from __future__ import annotations

import json
from types import SimpleNamespace
from typing import NamedTuple

import pytest
import torch
from pydantic import Field
from torch import Tensor, nn

import lesionforge as lf
from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, ConfigError
from lesionforge.core.registry import Registry
from lesionforge.plugins.segmentation import plugin as segmentation
from lesionforge.plugins.segmentation.config import SegmentationConfig
from lesionforge.plugins.segmentation.plugin import SegmentationTrainer, SegmenterAnnotator, SegmenterExtractor
from lesionforge.plugins.segmentation.segmenter import Segmenter, load_encoder, load_segmenter

CALLS = []


class Line(nn.Module):
    """One convolution, and in training mode two further predictions."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 3, width, padding="same")

    def forward(self, images: Tensor) -> Tensor:
        logits = self.layer(images)
        return logits if self.training else logits[:, :1]


class Outputs(NamedTuple):
    logits: Tensor
    extra: list[Tensor]


class Own(nn.Module):
    """Returns what only its own loss understands."""

    def __init__(self) -> None:
        super().__init__()
        self.layer = nn.Conv2d(3, 1, 1)

    def forward(self, images: Tensor) -> Tensor | Outputs:
        logits = self.layer(images)
        return Outputs(logits, [logits]) if self.training else logits

    def training_loss(self, outputs: Outputs, masks: Tensor, loss) -> Tensor:
        CALLS.append((type(outputs), tuple(masks.shape)))
        return loss(outputs.logits, masks) + outputs.extra[0].square().mean()


class LineNetwork(lf.Architecture):
    """One convolution."""

    name = "line"

    class Config(lf.PluginConfig):
        width: int = Field(3, ge=1, description="edge of its kernel")

    def build(self) -> nn.Module:
        return Line(self.config.width)


class OwnNetwork(lf.Architecture):
    """One convolution with a loss of its own."""

    name = "own"

    def build(self) -> nn.Module:
        return Own()


def registry_of(*architectures) -> Registry:
    def point(name, module, distribution):
        return SimpleNamespace(name=name, dist=SimpleNamespace(name=distribution, version="1.0"), load=lambda: module)

    stranger = SimpleNamespace(register_plugins=lf.hookimpl(lambda: list(architectures)))
    return Registry([point("segmentation", segmentation, "lesionforge"), point("toys", stranger, "toy-networks")])


@pytest.fixture
def registry() -> Registry:
    return registry_of(LineNetwork, OwnNetwork)


@pytest.fixture
def trained(discs, registry, tmp_path):
    def train(architecture):
        config = build_config(
            SegmentationConfig, {"architecture": architecture, "size": 16, "steps": 2, "batch_size": 4}, where="test"
        )
        trainer = SegmentationTrainer(config)
        trainer.setup(Context(torch.device("cpu"), name="job", seed=7, registry=registry))
        trainer.train(discs.split("train"), None, tmp_path)
        assert set(trainer.evaluate(discs.take(range(2)), tmp_path)) >= {"dice", "parameters"}
        return tmp_path

    return train


def test_a_checkpoint_keeps_the_expression_and_whose_it_is(trained, registry):
    folder = trained("line")
    info = json.loads((folder / "config.json").read_text())
    assert (info["architecture"], info["distribution"]) == ("line(width=3)", "toy-networks")
    segmenter, _ = load_segmenter(folder, registry)
    assert isinstance(segmenter.network, Line)
    annotator = SegmenterAnnotator(SegmenterAnnotator.Config(checkpoint=str(folder)))
    annotator.setup(Context(torch.device("cpu"), registry=registry))
    batch = lf.Batch.blank(2, seed=0).with_columns(images=torch.rand(2, 3, 20, 20))
    assert annotator.annotate(batch).masks.shape == (2, 1, 20, 20)


def test_a_missing_distribution_is_one_line_that_names_it(trained):
    folder = trained("line(width=5)")
    with pytest.raises(
        CheckpointError, match="needs toy-networks installed: no architecture is called 'line'"
    ) as caught:
        load_segmenter(folder, registry_of(OwnNetwork))
    assert "\n" not in str(caught.value) and str(folder) in str(caught.value)


def test_a_checkpoint_of_another_version_of_the_plugin_is_one_line(trained):
    folder = trained("line(width=5)")

    class Renamed(LineNetwork):
        """One convolution, configured by another word."""

        class Config(lf.PluginConfig):
            edge: int = Field(3, description="edge of its kernel")

    with pytest.raises(CheckpointError, match=r"config\.json does not describe .*unknown key 'width'"):
        load_segmenter(folder, registry_of(Renamed))


def test_a_network_may_bring_its_own_loss(trained):
    CALLS.clear()
    trained("own")
    assert [(Outputs, (4, 1, 16, 16))] * 2 == CALLS


def test_a_network_without_an_encoder_is_refused_where_one_is_needed(trained, registry, tmp_path):
    folder = trained("line")
    extractor = SegmenterExtractor(SegmenterExtractor.Config(weights=str(folder)))
    with pytest.raises(CheckpointError, match=r"holds line\(width=3\), which hands out no maps to measure with"):
        extractor.setup(Context(torch.device("cpu"), registry=registry))
    segmenter, _ = load_segmenter(folder, registry)
    assert not segmenter.has_encoder
    with pytest.raises(CheckpointError, match="this architecture has no encoder"):
        load_encoder(segmenter, tmp_path / "model.safetensors")


def test_values_beside_the_name_reach_a_plugin_too(registry):
    config = SegmentationConfig(architecture="line", width=5, size=20)
    assert config.network_values(registry)["architecture"] == "line(width=5)"
    with pytest.raises(ConfigError, match="depth applies to dilated-unet, not to line"):
        SegmentationConfig(architecture="line", depth=2).network(registry)
    assert SegmentationTrainer.uses(config, registry)[0].distribution == "toy-networks"


def test_checkpoints_that_name_values_beside_the_network_still_load(checkpoint):
    info = json.loads((checkpoint / "config.json").read_text())
    assert info["architecture"] == "dilated-unet" and info["width"] == 4
    del info["distribution"]
    (checkpoint / "config.json").write_text(json.dumps(info))
    assert isinstance(load_segmenter(checkpoint)[0], Segmenter)
