"""Losses of segmentation on logits, computed in fp32 or better whatever autocast says, averaged over images."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from .config import SegmentationConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def bce_loss(logits: Tensor, masks: Tensor) -> Tensor:
    """Return the mean binary cross-entropy of (N, 1, H, W) ``logits`` against ``masks`` of 0 and 1."""
    logits, masks = _exact(logits, masks)
    return F.binary_cross_entropy_with_logits(logits, masks)


def dice_loss(logits: Tensor, masks: Tensor, *, smoothing: float = 1.0) -> Tensor:
    """Return 1 - (2 sum(p g) + epsilon) / (sum(p) + sum(g) + epsilon) of each image, averaged over images.

    Milletari et al. 2016 without squares, as EnhancedDDPM's "epsilon smoothed" Dice; summing within images rather
    than over the batch and ``smoothing`` (epsilon, in pixels) are our choice.
    """
    logits, masks = _exact(logits, masks)
    probabilities = logits.sigmoid()
    overlap, total = _sums(probabilities * masks), _sums(probabilities + masks)
    return (1 - (2 * overlap + smoothing) / (total + smoothing)).mean()


def bce_dice_loss(logits: Tensor, masks: Tensor, *, smoothing: float = 1.0) -> Tensor:
    """Return the sum of :func:`bce_loss` and :func:`dice_loss` (EnhancedDDPM section 3.2.2)."""
    return bce_loss(logits, masks) + dice_loss(logits, masks, smoothing=smoothing)


def focal_loss(logits: Tensor, masks: Tensor, *, gamma: float = 2.0, alpha: float = 0.25) -> Tensor:
    """Return the mean of -alpha_t (1 - p_t)^gamma log p_t over pixels (Lin et al. 2017, eq. 5).

    ``alpha`` weighs lesion pixels, ``1 - alpha`` the others.
    """
    logits, masks = _exact(logits, masks)
    entropy = F.binary_cross_entropy_with_logits(logits, masks, reduction="none")
    towards_truth = (2 * masks - 1) * logits
    missed = torch.exp(gamma * F.logsigmoid(-towards_truth))
    weight = alpha * masks + (1 - alpha) * (1 - masks)
    return (weight * missed * entropy).mean()


def tversky_loss(
    logits: Tensor, masks: Tensor, *, alpha: float = 0.3, beta: float = 0.7, smoothing: float = 1.0
) -> Tensor:
    """Return 1 - (TP + epsilon) / (TP + alpha FP + beta FN + epsilon) of each image, averaged over images.

    Salehi et al. 2017, eq. 3, with ``smoothing`` (epsilon, in pixels) added; alpha = beta = 1/2 is a Dice loss.
    """
    logits, masks = _exact(logits, masks)
    probabilities = logits.sigmoid()
    hits = _sums(probabilities * masks)
    false_alarms, misses = _sums(probabilities * (1 - masks)), _sums((1 - probabilities) * masks)
    return (1 - (hits + smoothing) / (hits + alpha * false_alarms + beta * misses + smoothing)).mean()


def make_loss(config: SegmentationConfig) -> Loss:
    """Return the loss that ``config`` names, with its parameters."""
    smoothing = config.dice_smoothing
    losses: dict[str, Loss] = {
        "bce": bce_loss,
        "dice": lambda logits, masks: dice_loss(logits, masks, smoothing=smoothing),
        "bce+dice": lambda logits, masks: bce_dice_loss(logits, masks, smoothing=smoothing),
        "focal": lambda logits, masks: focal_loss(logits, masks, gamma=config.focal_gamma, alpha=config.focal_alpha),
        "tversky": lambda logits, masks: tversky_loss(
            logits, masks, alpha=config.tversky_alpha, beta=config.tversky_beta, smoothing=smoothing
        ),
    }
    return losses[config.loss]


def _exact(logits: Tensor, masks: Tensor) -> tuple[Tensor, Tensor]:
    dtype = torch.promote_types(logits.dtype, torch.float32)
    return logits.to(dtype), masks.to(dtype)


def _sums(values: Tensor) -> Tensor:
    return values.flatten(1).sum(1)
