"""The optional perceptual loss: features of a VGG-19 from a local weights file (paper, section 4).

The released code's layers and weights: the first ReLU of each of the five groups, 1/32, 1/16, 1/8, 1/4 and 1. Colours
are normalised as torchvision's weights expect (ours).
"""

from __future__ import annotations

import pickle
from pathlib import Path

import torch
import torch.nn.functional as F
from safetensors import SafetensorError
from safetensors.torch import load_file
from torch import Tensor, nn

import lesionforge as lf

GROUPS = ((64, 2), (128, 2), (256, 4), (512, 4), (512, 1))
"""Channels and convolutions of each group; of the last no more than is used."""
WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
PREFIX = "features."


class PerceptualLoss(nn.Module):
    """Weighted mean absolute differences of frozen VGG-19 features."""

    mean: Tensor
    std: Tensor

    def __init__(self, weights: Path) -> None:
        """Load the weights of the convolutions.

        Raises:
            CheckpointError: the file is missing, damaged or of another network.
        """
        super().__init__()
        layers, channels = [], 3
        for number, (width, convolutions) in enumerate(GROUPS):
            layers += [nn.MaxPool2d(2)] if number else []
            for _ in range(convolutions):
                layers += [nn.Conv2d(channels, width, 3, padding=1), nn.ReLU()]
                channels = width
        # Numbered as torchvision's vgg19().features.
        self.features = nn.Sequential(*layers)
        pools = [number for number, layer in enumerate(layers) if isinstance(layer, nn.MaxPool2d)]
        self._tapped = (1, *(pool + 2 for pool in pools))
        load_features(self.features, weights)
        self.requires_grad_(False)
        self.register_buffer("mean", torch.tensor(MEAN).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(1, 3, 1, 1), persistent=False)

    def forward(self, made: Tensor, real: Tensor) -> Tensor:
        """Return the loss of (N, 3, H, W) images in [-1, 1]; no gradient reaches ``real``."""
        with torch.no_grad():
            aims = self._features(real)
        pairs = zip(WEIGHTS, self._features(made), aims, strict=True)
        return torch.stack([weight * F.l1_loss(found.float(), aim.float()) for weight, found, aim in pairs]).sum()

    def _features(self, images: Tensor) -> list[Tensor]:
        features, found = ((images + 1) / 2 - self.mean) / self.std, []
        for number, layer in enumerate(self.features):
            features = layer(features)
            if number in self._tapped:
                found.append(features)
        return found


def load_features(features: nn.Module, file: Path) -> None:
    """Put the weights that torchvision names ``features.N`` into ``features``; the classifier's are left out.

    Raises:
        CheckpointError: the file is missing, damaged or of another network.
    """
    if not file.is_file():
        raise lf.CheckpointError(f"perceptual_weights: there is no file {file}; give torchvision's vgg19 weights")
    try:
        named = load_file(file) if file.suffix == ".safetensors" else torch.load(file, "cpu", weights_only=True)
        wanted = {name: named[PREFIX + name] for name in features.state_dict()}
        features.load_state_dict(wanted)
    except (SafetensorError, pickle.UnpicklingError, OSError, EOFError, ValueError, TypeError) as error:
        raise lf.CheckpointError(f"perceptual_weights: {file} cannot be read: {one_line(error)}") from error
    except (KeyError, RuntimeError) as error:
        raise lf.CheckpointError(
            f"perceptual_weights: {file} holds no VGG-19 as torchvision names its weights: {one_line(error)}"
        ) from error


def one_line(error: Exception) -> str:
    """Return an error's message on one line."""
    return " ".join(str(error).split()) or type(error).__name__
