"""Paired augmentation as torchvision v2 transforms that take whole batches and draw each case's own parameters.

All randomness comes from torch's CPU random state, which the training loop seeds for every step; the parameters are
therefore the same on every device. torchvision's own transforms draw one set of parameters for a whole batch.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor
from torchvision import tv_tensors
from torchvision.transforms import v2


class CaseFlips(v2.Transform):
    """Mirrors each axis of images and masks with probability 1/2, case by case."""

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        device = flat_inputs[0].device
        chosen = torch.rand(2, len(flat_inputs[0]), 1, 1, 1) < 0.5
        return {"rows": chosen[0].to(device), "columns": chosen[1].to(device)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        flipped = torch.where(params["rows"], inpt.flip(-2), inpt)
        return type(inpt)(torch.where(params["columns"], flipped.flip(-1), flipped))


class CaseAffine(v2.Transform):
    """Rotates and scales about the centre, case by case; the border is filled by reflection, in masks as in images.

    Args:
        degrees: rotations are uniform in [-degrees, degrees].
        scale: factors are uniform in [1 - scale, 1 + scale].
    """

    def __init__(self, degrees: float, scale: float) -> None:
        super().__init__()
        self.degrees, self.scale = degrees, scale

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        images = flat_inputs[0]
        count, height, width = len(images), *images.shape[-2:]
        angle = math.radians(self.degrees) * (2 * torch.rand(count, 1, 1) - 1)
        factor = 1 + self.scale * (2 * torch.rand(count, 1, 1) - 1)
        y = (torch.arange(height) + 0.5 - height / 2).view(1, -1, 1)
        x = (torch.arange(width) + 0.5 - width / 2).view(1, 1, -1)
        cosine, sine = torch.cos(angle) / factor, torch.sin(angle) / factor
        grid = [(cosine * x - sine * y) * (2 / width), (sine * x + cosine * y) * (2 / height)]
        return {"grid": torch.stack(grid, dim=-1).to(images.device)}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        mode = "nearest" if isinstance(inpt, tv_tensors.Mask) else "bilinear"
        # Under autocast CPU kernels would take a bfloat16 grid, whose 8 bits miss the pixel.
        with torch.autocast(inpt.device.type, enabled=False):
            moved = F.grid_sample(inpt.as_subclass(Tensor), params["grid"], mode, "reflection", align_corners=False)
        return type(inpt)(moved)


class CaseColour(v2.Transform):
    """Changes brightness, contrast and saturation of images, case by case; masks stay.

    Args:
        strength: the three factors are uniform in [1 - strength, 1 + strength].
    """

    def __init__(self, strength: float) -> None:
        super().__init__()
        self.strength = strength

    def make_params(self, flat_inputs: list[Any]) -> dict[str, Any]:
        factors = 1 + self.strength * (2 * torch.rand(3, len(flat_inputs[0]), 1, 1, 1) - 1)
        brightness, contrast, saturation = factors.to(flat_inputs[0].device)
        return {"brightness": brightness, "contrast": contrast, "saturation": saturation}

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        if isinstance(inpt, tv_tensors.Mask):
            return inpt
        images = (inpt.as_subclass(Tensor) * params["brightness"]).clamp(0, 1)
        for name, dimensions in (("contrast", (1, 2, 3)), ("saturation", (1,))):
            grey = v2.functional.rgb_to_grayscale(images).mean(dimensions, keepdim=True)
            images = torch.lerp(grey.expand_as(images), images, params[name]).clamp(0, 1)
        return type(inpt)(images)


class Augmentation:
    """Flips, rotation with scaling, and changes of colour, in this order; one without any returns its input."""

    def __init__(self, *, flips: bool, rotation_degrees: float, scale: float, colour: float) -> None:
        """Take what :class:`CaseFlips`, :class:`CaseAffine` and :class:`CaseColour` take; 0 leaves a step out."""
        steps: list[v2.Transform] = []
        if flips:
            steps.append(CaseFlips())
        if rotation_degrees or scale:
            steps.append(CaseAffine(rotation_degrees, scale))
        if colour:
            steps.append(CaseColour(colour))
        self._steps = steps

    def __call__(self, images: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
        """Change (N, 3, H, W) images in [0, 1] and their (N, 1, H, W) masks in the same way."""
        pair: tuple[Any, Any] = tv_tensors.Image(images), tv_tensors.Mask(masks)
        for step in self._steps:
            pair = step(*pair)
        return pair[0].as_subclass(Tensor), pair[1].as_subclass(Tensor)

    def images(self, images: Tensor) -> Tensor:
        """Change (N, 3, H, W) images in [0, 1] without masks; equal draws change them as :meth:`__call__` does."""
        picture: Any = tv_tensors.Image(images)
        for step in self._steps:
            picture = step(picture)
        return picture.as_subclass(Tensor)
