"""Losses between attention maps and the regions of a mask, one value a case, so that each case's gradient is its own.

Notation: A_C and A_S are cross- and self-attention probabilities, means over the heads and layers of one resolution,
N tokens of a square grid; i runs over the two placeholder tokens, lesion and skin, whose regions are M and 1 - M.
``paper`` is what the paper's equations say, ``reference`` what its released code does. Guidance takes the places of
three tokens a prompt: lesion, skin, and the end token.
"""

from __future__ import annotations

import math
from typing import Literal

import torch
from torch import Tensor
from torch.nn import functional
from torchvision.transforms.v2.functional import gaussian_blur

from ...kernels import attention_leakage, token_attention
from ..stable_diffusion.attention import RecordedAttention

Compat = Literal["paper", "reference"]
Shrinking = Literal["area", "bicubic", "bilinear"]

SMOOTHING = (3, 0.5)
"""Kernel size and standard deviation in map pixels of the Gaussian before L_CA (ours; the paper names neither)."""
SHARPENING = 100.0
"""Factor on the probabilities before the released code's second softmax."""


def on_grid(masks: Tensor, tokens: int, how: Shrinking = "area") -> Tensor:
    """Return the shares (B, N, 2) of lesion and skin in each map pixel, for masks (B, 1, H, W) of 0 and 1.

    The paper does not say how a mask comes to the map's size; ours is the mean over the pixel's area. The released code
    interpolates bicubically between single pixels in training, and for guidance bilinearly over the whole area, as
    Pillow does.
    """
    edge = math.isqrt(tokens)
    size = (edge, edge)
    if how == "area":
        lesion = functional.adaptive_avg_pool2d(masks, size)
    else:
        lesion = functional.interpolate(masks, size, mode=how, align_corners=False, antialias=how == "bilinear")
    lesion = lesion.flatten(1)
    return torch.stack((lesion, 1 - lesion), dim=-1)


def token_maps(cross: RecordedAttention, tokens: Tensor) -> Tensor:
    """Return A_C (B, N, T) of the tokens (B, T), in float32 at least."""
    dtype = torch.promote_types(cross.query.dtype, torch.float32)
    return token_attention(cross.query.to(dtype), cross.key.to(dtype), tokens)


def sharpened_maps(cross: RecordedAttention, tokens: Tensor, ends: Tensor) -> Tensor:
    """Return the released code's A_C (B, N, T): softmax over the words of 100 times the probabilities.

    The words are what stands between a prompt's start token and its end token, at ``ends`` (B,).
    """
    between = torch.arange(1, cross.key.shape[2] - 1, device=tokens.device)
    maps = token_maps(cross, between.expand(len(tokens), -1)) * SHARPENING
    behind = (between >= ends[:, None])[:, None]
    sharpened = torch.softmax(maps.masked_fill(behind, -torch.inf), dim=-1)
    chosen = (tokens - 1)[:, None, :].expand(-1, sharpened.shape[1], -1)
    return sharpened.gather(-1, chosen)


def region_loss(cross: RecordedAttention, tokens: Tensor, masks: Tensor, *, compat: Compat = "paper") -> Tensor:
    """L_attn = 1/2 sum_i ||A_C(v_i) - M_i||^2 (B,), the norm taken as a mean over map pixels (equation 3).

    The mean is ours: a sum over 256 pixels would drown L_rec at the paper's weight of 0.1. The released code stretches
    each map to [0, 1] first and interpolates the masks bicubically.
    """
    maps = token_maps(cross, tokens)
    regions = on_grid(masks, maps.shape[1], "area" if compat == "paper" else "bicubic")
    if compat == "reference":
        maps = stretched(maps, dim=1)
    return (maps - regions.to(maps.dtype)).square().mean(1).sum(-1) / 2


def cross_loss(cross: RecordedAttention, tokens: Tensor, masks: Tensor, *, compat: Compat = "paper") -> Tensor:
    """L_CA (B,): L_attn's form on Gaussian-smoothed maps, or the released code's inside-outside form.

    The latter is the mean over both tokens of 1 - (mean of the map inside) + (mean outside), of sharpened maps.

    Args:
        tokens: (B, 3).
    """
    placeholders, ends = tokens[:, :2], tokens[:, 2]
    regions = _guiding_regions(masks, cross, compat)
    if compat == "paper":
        maps = smoothed(token_maps(cross, placeholders))
        return (maps - regions.to(maps.dtype)).square().mean(1).sum(-1) / 2
    maps = sharpened_maps(cross, placeholders, ends)
    inside = regions.to(maps.dtype)
    return (1 - _mean_where(maps, inside) + _mean_where(maps, 1 - inside)).mean(-1)


def self_loss(
    self_attention: RecordedAttention, masks: Tensor, *, compat: Compat = "paper", two_sided: bool = True
) -> Tensor:
    """L_SA = 1/2 sum_i sum_{p in M_i} sum_q A_S[p, q] (1 - M_i[q]) / sum(1 - M_i), (B,) (equation 5).

    A map pixel belongs to the lesion where more than half of it does; a lesion too small for any, or that leaves the
    skin none, has no loss. ``two_sided=False`` leaves the skin term out.
    The released code has the lesion term alone, counted twice and halved, as a mean over p.
    """
    lesion = _guiding_regions(masks, self_attention, compat)[..., 0] > 0.5
    if compat == "reference":
        return attention_leakage(self_attention.query, self_attention.key, lesion, regions="mask", reduction="mean")
    regions = "both" if two_sided else "mask"
    leaked = attention_leakage(self_attention.query, self_attention.key, lesion, regions=regions, reduction="sum")
    return (leaked.sum(-1) if two_sided else leaked) / 2


def smoothed(maps: Tensor) -> Tensor:
    """Return maps (B, N, T) blurred by a Gaussian, mirrored at the border."""
    edge = math.isqrt(maps.shape[1])
    size, deviation = SMOOTHING
    images = maps.mT.unflatten(-1, (edge, edge))
    return gaussian_blur(images, [size, size], [deviation, deviation]).flatten(2).mT


def stretched(maps: Tensor, *, dim: int) -> Tensor:
    """Return maps stretched to [0, 1] along ``dim``; a constant map becomes 0."""
    low, high = maps.amin(dim, keepdim=True), maps.amax(dim, keepdim=True)
    return (maps - low) / (high - low).clamp(min=torch.finfo(maps.dtype).tiny)


def _guiding_regions(masks: Tensor, attention: RecordedAttention, compat: Compat) -> Tensor:
    return on_grid(masks, attention.query.shape[2], "area" if compat == "paper" else "bilinear")


def _mean_where(maps: Tensor, weights: Tensor) -> Tensor:
    """Return the weighted mean (B, T) of maps (B, N, T); 0 where all weights are."""
    total = weights.sum(1)
    return (maps * weights).sum(1) / torch.where(total > 0, total, 1)
