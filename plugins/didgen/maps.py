"""Soft masks of generated lesions from attention maps (paper, section 2.4, equation 7)."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from torch import Tensor
from torch.nn import functional

from ...kernels import attention_refinement
from ..stable_diffusion.attention import RecordedAttention
from .losses import Compat, sharpened_maps, stretched, token_maps


def lesion_soft_masks(
    cross: RecordedAttention, self_attention: RecordedAttention, tokens: Tensor, *, tau: int, compat: Compat = "paper"
) -> Tensor:
    """Return A_CS = A_S^tau A_C(v_l), stretched to [0, 1]: (B, 1, E, E) float32, E the edge of the self-attention map.

    A_C is enlarged bicubically to A_S's grid. The released code stretches A_S^tau as well, which cancels: it scales
    and shifts the product, which is stretched again. Its A_C is sharpened, see :func:`losses.sharpened_maps`.

    Args:
        tokens: places (B, 3) of the lesion, the skin and the end token in each prompt.
        tau: power of A_S as a matrix; 0 leaves A_C alone.
    """
    source, edge = math.isqrt(cross.query.shape[2]), math.isqrt(self_attention.query.shape[2])
    lesion, ends = tokens[:, :1], tokens[:, 2]
    maps = token_maps(cross, lesion) if compat == "paper" else sharpened_maps(cross, lesion, ends)
    coarse = maps.float().mT.unflatten(-1, (source, source))
    fine = functional.interpolate(coarse, size=(edge, edge), mode="bicubic", align_corners=False)
    refined = attention_refinement(self_attention.query, self_attention.key, fine.flatten(2).mT, steps=tau)
    return stretched(refined, dim=1).mT.unflatten(-1, (edge, edge))


def released_levels(soft_masks: Tensor, size: int) -> Tensor:
    """Return soft masks (N, 1, h, w) as the released code thresholds them: (N, 1, size, size) uint8.

    They are stretched to [0, 255], cut to whole levels, and only then enlarged, by Pillow's bicubic filter.
    """
    stretched_maps = stretched(soft_masks.float().flatten(1), dim=1).nan_to_num().view(soft_masks.shape)
    levels = (stretched_maps * 255).byte().cpu().numpy()
    large = [Image.fromarray(one[0]).resize((size, size), Image.Resampling.BICUBIC) for one in levels]
    return torch.from_numpy(np.stack([np.asarray(one)[None] for one in large])).to(soft_masks.device)


def otsu_uncertainty(soft_masks: Tensor, masks: Tensor) -> Tensor:
    """Return 1 - eta (N,), eta the share of the soft mask's variance that lies between mask and background.

    0 where the soft mask is two flat levels, towards 1 where no threshold separates it. Otsu 1979, equation 20; its use
    as an uncertainty is ours. A mask that is empty or full has 1.

    Args:
        soft_masks: (N, 1, H, W).
        masks: (N, 1, H, W) of 0 and 1.
    """
    values, inside = soft_masks.flatten(1).double(), masks.flatten(1).double()
    share = inside.mean(1)
    outside = 1 - inside
    apart = (values * inside).sum(1) / inside.sum(1).clamp(min=1)
    apart = apart - (values * outside).sum(1) / outside.sum(1).clamp(min=1)
    between, total = share * (1 - share) * apart.square(), values.var(1, correction=0)
    eta = torch.where(total > 0, between / total.clamp(min=1e-12), 0)
    return (1 - eta).clamp(0, 1).float()


def iou(masks: Tensor, others: Tensor) -> Tensor:
    """Return the intersection over union (N,) of masks (N, 1, H, W); 1 where both are empty."""
    inside, other = masks.flatten(1) > 0.5, others.flatten(1) > 0.5
    union = (inside | other).sum(1)
    return torch.where(union > 0, (inside & other).sum(1) / union.clamp(min=1), 1.0)


def resized(maps: Tensor, size: int) -> Tensor:
    """Return maps (N, 1, h, w) enlarged bilinearly to (N, 1, size, size)."""
    if maps.shape[-2:] == (size, size):
        return maps
    return functional.interpolate(maps.float(), size=(size, size), mode="bilinear", align_corners=False)
