"""From images to lesion probabilities with a trained segmenter."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...core.context import Context
from ..supervised.images import network_input, resized
from .segmenter import Segmenter

MIRRORINGS: tuple[tuple[int, ...], ...] = ((), (-1,), (-2,), (-2, -1))


@torch.no_grad()
def lesion_probabilities(
    network: nn.Module, images: Tensor, *, size: int, context: Context, flips: bool = False
) -> Tensor:
    """Return (N, 1, H, W) fp32 lesion probabilities for (N, 3, H, W) images in [0, 1].

    ``network``, in evaluation mode, maps such images to logits. Images are resized to its ``size`` and the
    probabilities back, bilinearly with antialiasing. ``flips`` takes the mean over the four mirrorings.
    """
    inputs = network_input(images, size)
    views = MIRRORINGS if flips else MIRRORINGS[:1]
    total = torch.zeros(len(images), 1, size, size, device=images.device)
    for axes in views:
        with context.autocast():
            logits = network(inputs.flip(axes))
        total += logits.float().sigmoid().flip(axes)
    height, width = images.shape[-2:]
    return resized(total / len(views), (height, width)).clamp(0, 1)


def soft_dice_confidence(probabilities: Tensor, masks: Tensor) -> Tensor:
    """Return (N,) fp32 2 sum(p m) / (sum(p) + sum(m)) of probabilities p and the masks m thresholded from them.

    Our choice of a confidence: were p calibrated, this is the expected overlap with the truth times two over the
    expected total of both areas, so an estimate of the Dice that the mask deserves. 1 is certain; an image in which
    nothing is found has 0.
    """
    overlap = (probabilities * masks).flatten(1).sum(1)
    total = (probabilities + masks).flatten(1).sum(1)
    return 2 * overlap / total.clamp(min=torch.finfo(torch.float32).tiny)


@torch.no_grad()
def encoder_maps(segmenter: Segmenter, images: Tensor, *, size: int) -> list[Tensor]:
    """Return the encoder's (N, C, h, w) fp32 maps, shallow to deep, for (N, 3, H, W) images in [0, 1].

    Always in fp32: distances between feature distributions are differences of close numbers.
    """
    with torch.autocast(images.device.type, enabled=False):
        return segmenter.encode(network_input(images, size))
