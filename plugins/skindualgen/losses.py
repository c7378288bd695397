"""Losses of the mask's logits, in fp32 or better whatever autocast says (paper, section 3.3)."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def bce_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of logits (N, 1, H, W) against masks of 0 and 1 (equation 6)."""
    return functional.binary_cross_entropy_with_logits(_exact(logits), masks.to(_exact(logits)))


def dice_loss(logits: Tensor, masks: Tensor, *, smoothing: float) -> Tensor:
    """Return 1 - (2 sum(y p) + epsilon) / (sum(y) + sum(p) + epsilon), p the sigmoid of the logits (equation 7).

    Sums run over the pixels of an image, and the mean over images is taken (ours); ``smoothing`` is epsilon, in pixels.
    """
    probabilities = _exact(logits).sigmoid().flatten(1)
    masks = masks.to(probabilities).flatten(1)
    overlap, total = (probabilities * masks).sum(1), (probabilities + masks).sum(1)
    return (1 - (2 * overlap + smoothing) / (total + smoothing)).mean()


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
