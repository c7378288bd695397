"""The networks of LPIPS: five ReLU outputs of AlexNet or VGG16 with learned channel weights (Zhang et al. 2018)."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
import torchvision

from ...core.errors import CheckpointError
from .extractors import LPIPS_LABELS
from .tapping import tapped
from .weights import find_weights, fingerprint, fit_state, imported, load_state

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.context import Context

BUILDERS = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}
STANDARD_FILES = {"alex": "alexnet-owt-7be5be79.pth", "vgg": "vgg16-397923af.pth"}
LAYERS = {"alex": (1, 4, 7, 9, 11), "vgg": (3, 8, 15, 22, 29)}
# LPIPS normalises images in [-1, 1] with its own constants.
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)


class LpipsNetwork:
    """Backbone and channel weights of LPIPS v0.1 on a device.

    Attributes:
        label: one of ``LPIPS_LABELS`` where the backbone is torchvision's standard one, else a name that says so.
        channel_weights: (C,) non-negative weights of each map, from the package lpips.
    """

    def __init__(self, model: str, weights: str | None, context: Context) -> None:
        name = STANDARD_FILES[model]
        how = f"get torchvision's {name} and give its path as weights or put it into torch hub's checkpoints folder"
        path = find_weights(weights, extractor="lpips", hub_names=(name,), how=how)
        with torch.device("meta"):
            network = BUILDERS[model]().features
        state = {key[9:]: value for key, value in load_state(path).items() if key.startswith("features.")}
        fit_state(network, state, path, extractor=f"lpips ({model})")
        self._network = network.to(context.device)
        self._layers = [network[index] for index in LAYERS[model]]
        self.weights_hash = mark = fingerprint(path)
        self.label = LPIPS_LABELS[model] if mark in name else f"LPIPS form on {model} {mark}"
        self.channel_weights = [weight.to(context.device) for weight in _channel_weights(model)]

    @torch.no_grad()
    def maps(self, images: Tensor) -> Sequence[Tensor]:
        """Return the five maps for (N, 3, H, W) images in [0, 1], at their own resolution as LPIPS does."""
        shift, scale = (images.new_tensor(values)[:, None, None] for values in (SHIFT, SCALE))
        scaled = (2 * images - 1 - shift) / scale
        return tapped(self._layers, lambda: self._network(scaled))

    def vector(self, images: Tensor) -> Tensor:
        """Return the (N, D) spatial means of the five maps, side by side."""
        return torch.cat([layer.mean((2, 3)) for layer in self.maps(images)], dim=1)


def _channel_weights(model: str) -> list[Tensor]:
    package = imported("lpips", "lpips")
    path = Path(package.__file__).parent / "weights" / "v0.1" / f"{model}.pth"
    state = load_state(path)
    weights = [state[name].flatten().float() for name in sorted(state)]
    if len(weights) != len(LAYERS[model]) or any(bool((weight < 0).any()) for weight in weights):
        raise CheckpointError(f"{path} holds no LPIPS weights: five non-negative vectors are expected")
    return weights
