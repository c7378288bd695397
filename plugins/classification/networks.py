"""Architectures of torchvision and timm behind one interface, without any download."""

from __future__ import annotations

import re
from abc import abstractmethod
from collections import OrderedDict
from typing import Any

import timm
import torchvision
from torch import Tensor, nn
from torchvision.models.vision_transformer import interpolate_embeddings

from ...core.errors import CheckpointError, ConfigError, first_line
from ..supervised.checkpoint import load_pretrained
from .config import TIMM, VIT_PATCH, NetworkConfig

IMAGENET_MEAN, IMAGENET_STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
RESNET = ("layer4", "fc")
# The module that gives out the last maps of features, and the one that makes logits.
TORCHVISION = {
    "densenet121": ("features", "classifier"),
    "resnet18": RESNET,
    "resnet34": RESNET,
    "resnet50": RESNET,
    "squeezenet1_1": ("features", "classifier.1"),
    "swin_t": ("permute", "head"),  # its maps with the channels first
    "vgg16": ("features.29", "classifier.6"),
    "vit_b_16": (None, "heads.head"),
}

Triple = tuple[float, float, float]


class ClassificationNetwork(nn.Module):
    """A network from (N, 3, H, W) normalised images to (N, K) logits of which the last layers can be looked at.

    Attributes:
        mean, std: normalisation of RGB in [0, 1] that its published weights expect.
    """

    mean: Triple = IMAGENET_MEAN
    std: Triple = IMAGENET_STD

    @property
    @abstractmethod
    def map_layer(self) -> nn.Module | None:
        """The module that gives out the last (N, C, h, w) maps of features, where there are maps."""

    @property
    @abstractmethod
    def last_layer(self) -> nn.Module:
        """The module that makes logits of what the network knows."""

    @abstractmethod
    def load(self, weights: dict[str, Tensor], *, where: str) -> None:
        """Take pretrained weights as the library that has the architecture names them; the last layer stays as it is.

        Raises:
            CheckpointError: they are of another network.
        """

    def observe(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return the last (N, C, h, w) maps, None of tokens, and the (N, D) features that logits are made of."""
        seen: dict[str, Any] = {}
        hooks = [self.last_layer.register_forward_pre_hook(lambda _, given: seen.update(last=given[0]))]
        if self.map_layer is not None:
            hooks.append(self.map_layer.register_forward_hook(lambda _, given, made: seen.update(maps=made)))
        try:
            self(images)
        finally:
            for hook in hooks:
                hook.remove()
        last = seen["last"]
        return seen.get("maps"), last.mean(dim=(2, 3)) if last.ndim == 4 else last


class TorchvisionNetwork(ClassificationNetwork):
    """A classifier of torchvision with random weights."""

    def __init__(self, architecture: str, classes: int, size: int) -> None:
        super().__init__()
        self._maps, self._last = TORCHVISION[architecture]
        self._size = size if architecture.startswith("vit") else None
        edge = {} if self._size is None else {"image_size": size}
        self.network = torchvision.models.get_model(architecture, weights=None, num_classes=classes, **edge)

    @property
    def map_layer(self) -> nn.Module | None:
        return None if self._maps is None else self.network.get_submodule(self._maps)

    @property
    def last_layer(self) -> nn.Module:
        return self.network.get_submodule(self._last)

    def load(self, weights: dict[str, Tensor], *, where: str) -> None:
        # The published file of DenseNet still names its layers norm.1 and conv.1.
        renamed = {re.sub(r"\.(norm|conv)\.(\d)\.", r".\1\2.", name): value for name, value in weights.items()}
        if self._size is not None:
            renamed = _at_size(renamed, self._size, where)
        load_pretrained(self.network, renamed, where=where, head=(f"{self._last}.",))

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)


class TimmNetwork(ClassificationNetwork):
    """A classifier of timm with random weights.

    Raises:
        ConfigError: timm has no such model, or not with one head, or not for this size.
    """

    network: Any

    def __init__(self, name: str, classes: int, size: int) -> None:
        super().__init__()
        if not timm.is_model(name):
            raise ConfigError(f"{name!r} is no model of timm; timm.list_models() names them all")
        published = timm.get_pretrained_cfg(name)
        edge: dict[str, Any] = {"img_size": size} if published is not None and published.fixed_input_size else {}
        try:
            self.network = timm.create_model(name, pretrained=False, num_classes=classes, **edge)
        except (AssertionError, RuntimeError, TypeError, ValueError) as error:
            raise ConfigError(f"timm's {name} cannot be built for {size} pixels: {first_line(error)}") from error
        facts = self.network.pretrained_cfg
        if not isinstance(facts["classifier"], str):
            raise ConfigError(f"timm's {name} has several heads; take a network with one")
        self._last: str = facts["classifier"]
        self.mean, self.std = tuple(facts["mean"]), tuple(facts["std"])
        self._channels_last = getattr(self.network, "output_fmt", "NCHW") == "NHWC"
        self._maps = nn.Identity()

    @property
    def map_layer(self) -> nn.Module:
        return self._maps

    @property
    def last_layer(self) -> nn.Module:
        return self.network.get_submodule(self._last)

    def load(self, weights: dict[str, Tensor], *, where: str) -> None:
        load_pretrained(self.network, weights, where=where, head=(f"{self._last}.",))

    def forward(self, images: Tensor) -> Tensor:
        features = self.network.forward_features(images)
        if features.ndim == 4 and self._channels_last:
            features = self._maps(features.permute(0, 3, 1, 2)).permute(0, 2, 3, 1)
        elif features.ndim == 4:
            features = self._maps(features)
        return self.network.forward_head(features)


def build_network(config: NetworkConfig, classes: int) -> ClassificationNetwork:
    """Return the network that ``config`` describes, with random weights from torch's current random state.

    Raises:
        ConfigError: timm has no such model, or not for this size.
    """
    if config.architecture.startswith(TIMM):
        return TimmNetwork(config.architecture.removeprefix(TIMM), classes, config.size)
    return TorchvisionNetwork(config.architecture, classes, config.size)


def _at_size(weights: dict[str, Tensor], size: int, where: str) -> dict[str, Tensor]:
    """Return a vision transformer's weights with its embeddings of places interpolated to another size of images."""
    try:
        return dict(interpolate_embeddings(size, VIT_PATCH, OrderedDict(weights)))
    except (KeyError, ValueError) as error:
        raise CheckpointError(f"{where} does not fit the network: {first_line(error)}") from error
