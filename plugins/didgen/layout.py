"""Losses that layout guidance descends: DiDGen's own, and two others behind the same interface, as baselines.

A layout loss takes the cross-attention of one noise prediction, its self-attention where the loss uses it, the places
(B, 3) of the lesion, the skin and the end token, and masks (B, 1, H, W), and returns one value a case (B,).
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Protocol

import torch
from torch import Tensor
from torch.nn import functional

from ...kernels import attention_leakage
from ..stable_diffusion.attention import RecordedAttention
from .losses import Compat, cross_loss, on_grid, self_loss, token_maps


class LayoutLoss(Protocol):
    """See the module; ``uses_self`` says whether it needs self-attention, which costs a longer pass."""

    @property
    def uses_self(self) -> bool: ...

    def __call__(
        self, cross: RecordedAttention, own: RecordedAttention | None, tokens: Tensor, masks: Tensor
    ) -> Tensor: ...


TOP_SHARE = 0.2
"""Share of a region's pixels that Attention-Refocusing looks at (ours)."""


@dataclass(frozen=True)
class DiDGenLoss:
    """L_CA + L_SA (equation 6); each term can be left out, as in the paper's ablations."""

    compat: Compat = "paper"
    use_cross: bool = True
    use_self: bool = True
    two_sided: bool = True

    @property
    def uses_self(self) -> bool:
        return self.use_self

    def __call__(
        self, cross: RecordedAttention, own: RecordedAttention | None, tokens: Tensor, masks: Tensor
    ) -> Tensor:
        loss = torch.zeros(len(masks), device=masks.device)
        if self.use_cross:
            loss = loss + cross_loss(cross, tokens, masks, compat=self.compat)
        if self.use_self:
            assert own is not None
            loss = loss + self_loss(own, masks, compat=self.compat, two_sided=self.two_sided)
        return loss


@dataclass(frozen=True)
class ZestLoss:
    """ZestGuide: sum_i BCE(A_i, M_i) + BCE(A_i / max A_i, M_i), means over map pixels.

    Source: Couairon et al., "Zero-shot spatial layout conditioning for text-to-image diffusion models", ICCV 2023.
    Ours: the maps of the placeholder tokens at DiDGen's resolution stand for the paper's segments.
    """

    uses_self = False

    def __call__(
        self, cross: RecordedAttention, own: RecordedAttention | None, tokens: Tensor, masks: Tensor
    ) -> Tensor:
        maps = token_maps(cross, tokens[:, :2])
        regions = on_grid(masks, maps.shape[1]).to(maps.dtype)
        relative = maps / maps.amax(1, keepdim=True).clamp(min=torch.finfo(maps.dtype).tiny)
        return _bce(maps, regions) + _bce(relative, regions)


@dataclass(frozen=True)
class RefocusingLoss:
    """Attention-Refocusing: sum_i (1 - top(A_i in M_i))^2 + top(A_i outside)^2, and self-attention's mean leakage.

    top() is the mean of the largest values over a share of the region. Source: Phung et al., "Grounded text-to-image
    synthesis with attention refocusing", CVPR 2024; the share is ours.
    """

    uses_self = True

    def __call__(
        self, cross: RecordedAttention, own: RecordedAttention | None, tokens: Tensor, masks: Tensor
    ) -> Tensor:
        assert own is not None
        maps = token_maps(cross, tokens[:, :2])
        regions = (on_grid(masks, maps.shape[1]) > 0.5).to(maps.dtype)
        inside, outside = _top_mean(maps, regions), _top_mean(maps, 1 - regions)
        lesion = on_grid(masks, own.query.shape[2])[..., 0] > 0.5
        leaked = attention_leakage(own.query, own.key, lesion, regions="both")
        present = regions.amax(1)
        return ((1 - inside).square() * present + outside.square()).sum(-1) + leaked.sum(-1)


def _bce(maps: Tensor, regions: Tensor) -> Tensor:
    limit = torch.finfo(maps.dtype).eps
    entropy = functional.binary_cross_entropy(maps.clamp(limit, 1 - limit), regions, reduction="none")
    return entropy.mean(1).sum(-1)


def _top_mean(maps: Tensor, regions: Tensor) -> Tensor:
    """Return the mean (B, T) of the largest values of maps (B, N, T) within regions; 0 for an empty region."""
    count = (regions.sum(1, keepdim=True) * TOP_SHARE).ceil()
    ordered = torch.where(regions > 0, maps, -torch.inf).sort(dim=1, descending=True).values
    rank = torch.arange(maps.shape[1], device=maps.device)[:, None]
    return torch.where(rank < count, ordered, 0).sum(1) / count[:, 0].clamp(min=1)


LAYOUT_LOSSES: dict[str, LayoutLoss] = {"zest-guide": ZestLoss(), "attention-refocusing": RefocusingLoss()}
"""The baselines by name; ``didgen`` has settings of its own, see :class:`DiDGenLoss`."""
