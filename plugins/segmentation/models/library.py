"""Architectures of segmentation-models-pytorch and torchvision behind our one interface, without any download."""

from __future__ import annotations

from typing import Any

import segmentation_models_pytorch as smp
import timm
import torch
from segmentation_models_pytorch.encoders import get_encoder_names
from torch import Tensor, nn
from torchvision.models import get_model

from ....core.errors import ConfigError, first_line
from .network import SegmentationNetwork


class SmpNetwork(SegmentationNetwork):
    """A network of segmentation-models-pytorch with one output channel and a randomly initialised encoder.

    Raises:
        ConfigError: the encoder is unknown or does not go with the architecture.
    """

    network: Any

    def __init__(self, architecture: str, encoder_name: str) -> None:
        super().__init__()
        timm_name = encoder_name.removeprefix("tu-")
        known = timm.is_model(timm_name) if timm_name != encoder_name else encoder_name in get_encoder_names()
        if not known:
            raise ConfigError(
                f"encoder {encoder_name!r} is unknown; take one of segmentation-models-pytorch (resnet34, "
                "efficientnet-b0, mit_b0, ...) or tu-NAME with a name of timm"
            )
        try:
            self.network = smp.create_model(architecture, encoder_name, encoder_weights=None, in_channels=3, classes=1)
        except (ValueError, NotImplementedError) as error:
            raise ConfigError(
                f"encoder {encoder_name!r} does not go with {architecture}: {first_line(error)}"
            ) from error

    def encoder_module(self) -> nn.Module:
        return self.network.encoder

    def forward(self, images: Tensor) -> Tensor:
        return self.network(images)

    def encode(self, images: Tensor) -> list[Tensor]:
        # The first map is the image itself; transformer encoders put an empty one after it.
        return [features for features in self.network.encoder(images)[1:] if features.shape[1]]


class TorchvisionNetwork(SegmentationNetwork):
    """FCN or DeepLabV3 of torchvision with an auxiliary head, as EnhancedDDPM's parameter counts show it used them."""

    network: Any

    def __init__(self, architecture: str) -> None:
        super().__init__()
        name = architecture.replace("-", "_")
        self.network = get_model(name, weights=None, weights_backbone=None, num_classes=1, aux_loss=True)

    def encoder_module(self) -> nn.Module:
        return self.network.backbone

    def forward(self, images: Tensor) -> Tensor:
        logits = self.network(images)
        return torch.cat([logits["out"], logits["aux"]], dim=1) if self.training else logits["out"]

    def encode(self, images: Tensor) -> list[Tensor]:
        maps = self.network.backbone(images)
        return [maps["aux"], maps["out"]]
