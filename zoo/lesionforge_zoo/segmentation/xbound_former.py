"""XBound-Former: J. Wang, F. Chen, Y. Ma, L. Wang, Z. Fei, J. Shuai, X. Tang, Q. Zhou and J. Qin, "XBound-Former:
Toward Cross-scale Boundary Modeling in Transformers", IEEE Transactions on Medical Imaging 42(6), 1735-1745 (2023),
arXiv 2206.00806. DiDGen trains it.

We know it from its abstract, its published code, and summaries of its equations by others who rebuilt it; the paper
itself was not at hand. They give: PVTv2-B2 as pyramid; on its three deeper scales, with 128 channels and 8 heads,
implicit boundary blocks (im-Bound: self-attention, then a map of key points that lifts the features, z = rho + rho M)
and explicit ones (ex-Bound: one query becomes the scale's boundary embedding and serves another map), two of each;
cross-scale learners (X-Bound) in which each of two neighbouring scales attends to the other's embedding, before both
are joined at the finer one; a prediction from the finest scale beside the first joined one, and one from each of the
three, all trained on the mask with equal weights; the cross-entropy of every key-point map, with weight 1. Both losses
are included here.

Ours: sine position embeddings, so that any size of image will do; perceptrons of four times the channels (the code has
sixteen); key-point maps by one linear layer, as the equation has it (the code convolves); how ex-Bound hands its
embedding back to the features: added to each. The key points of the training data are, in the published code, where the
lesion's share of a disc around a point of the contour is extreme among its neighbours; :func:`boundary_points` is ours
in that spirit, for batches of masks that augmentation has just made, on their device.

Attention to one embedding weighs it with one, whatever the query. X-Bound therefore is written as what it is: one
linear map of the embedding, added at every pixel.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any, NamedTuple

import timm
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .layers import convolution, enlarged

DROPOUT = 0.1
DROP_PATH = 0.1
HIDDEN = 4
# Fractions of the image's edge: 10 pixels of 512, 64 of 512 and 15 of 512.
DISC_RADIUS = 10 / 512
REACH = 1 / 8
SPREAD = 15 / 512

Loss = Callable[[Tensor, Tensor], Tensor]


class Predictions(NamedTuple):
    """What the network returns in training mode.

    Attributes:
        masks: (N, 4, H, W) logits: the final prediction, then one of each scale, fine to coarse.
        points: logits of every block's key-point map, (N, 1, h, w) at its scale.
    """

    masks: Tensor
    points: list[Tensor]


class XBoundFormer(nn.Module):
    """Maps (N, 3, H, W) normalised images to (N, 1, H, W) logits; edges are multiples of 32.

    Args:
        encoder: PVTv2 of timm.
        channels: of every token.
        heads: of every attention.
        im_blocks: implicit boundary blocks of each scale.
        ex_blocks: explicit boundary blocks of each scale.
        boundary_weight: of the key points' loss.
    """

    encoder: Any

    def __init__(
        self, encoder: str, channels: int, *, heads: int, im_blocks: int, ex_blocks: int, boundary_weight: float
    ) -> None:
        super().__init__()
        self.boundary_weight = boundary_weight
        self.encoder = timm.create_model(encoder, pretrained=False, num_classes=0, drop_path_rate=DROP_PATH)
        finest, *deeper = (stage["num_chs"] for stage in self.encoder.feature_info)
        self.scales = nn.ModuleList(
            ScaleBoundary(inputs, channels, heads, im_blocks=im_blocks, ex_blocks=ex_blocks) for inputs in deeper
        )
        self.crossings = nn.ModuleList(CrossScaleBoundary(channels) for _ in deeper[1:])
        self.final = nn.Sequential(convolution(finest + channels, 64, 1), nn.Conv2d(64, 1, 1))
        self.heads = nn.ModuleList(nn.Conv2d(channels, 1, 1) for _ in deeper)

    def forward(self, images: Tensor) -> Tensor | Predictions:
        finest, *deeper = self.encode(images)
        learnt = [scale(features) for scale, features in zip(self.scales, deeper, strict=True)]
        fused = [learnt[-1].features]
        for crossing, fine, coarse in zip(self.crossings, learnt[-2::-1], learnt[:0:-1], strict=True):
            fused.insert(0, crossing(fine.features, fused[0], fine.embedding, coarse.embedding))
        final = self.final(torch.cat([finest, enlarged(fused[0], finest)], dim=1))
        if not self.training:
            return enlarged(final, images)
        each = [head(features) for head, features in zip(self.heads, fused, strict=True)]
        masks = torch.cat([enlarged(logits, images) for logits in [final, *each]], dim=1)
        return Predictions(masks, [points for scale in learnt for points in scale.points])

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the pyramid's maps, shallow to deep."""
        return self.encoder.forward_intermediates(images, intermediates_only=True)

    def encoder_module(self) -> nn.Module:
        """Return the pyramid, whose tensors are named as in timm's files."""
        return self.encoder

    def training_loss(self, outputs: Predictions, masks: Tensor, loss: Loss) -> Tensor:
        """Return the mean loss of the four predictions, plus the weighted mean cross-entropy of the key-point maps."""
        predicted = [loss(logits, masks) for logits in outputs.masks.split(1, dim=1)]
        points, edge = boundary_points(masks), masks.shape[-1]
        marked = [F.max_pool2d(points, edge // logits.shape[-1]) for logits in outputs.points]
        entropies = [
            F.binary_cross_entropy_with_logits(logits.float(), truth)
            for logits, truth in zip(outputs.points, marked, strict=True)
        ]
        return torch.stack(predicted).mean() + self.boundary_weight * torch.stack(entropies).mean()


class Learnt(NamedTuple):
    """What one scale knows of the boundary: (N, C, h, w) features, (N, 1, C) embedding, (N, 1, h, w) maps' logits."""

    features: Tensor
    embedding: Tensor
    points: list[Tensor]


class ScaleBoundary(nn.Module):
    """Implicit, then explicit boundary blocks on the tokens of one scale."""

    def __init__(self, inputs: int, channels: int, heads: int, *, im_blocks: int, ex_blocks: int) -> None:
        super().__init__()
        self.project = nn.Conv2d(inputs, channels, 1)
        self.query = nn.Parameter(torch.randn(1, 1, channels))
        self.implicit = nn.ModuleList(ImplicitBoundary(channels, heads) for _ in range(im_blocks))
        self.explicit = nn.ModuleList(ExplicitBoundary(channels, heads) for _ in range(ex_blocks))

    def forward(self, features: Tensor) -> Learnt:
        height, width = features.shape[-2:]
        tokens = tokens_of(self.project(features))
        tokens = tokens + sine_positions(height, width, tokens.shape[-1], device=tokens.device).to(tokens.dtype)
        embedding = self.query.expand(len(tokens), -1, -1).to(tokens.dtype)
        points = []
        for block in self.implicit:
            tokens, logits = block(tokens)
            points.append(logits)
        for block in self.explicit:
            tokens, embedding, logits = block(tokens, embedding)
            points.append(logits)
        return Learnt(maps_of(tokens, height, width), embedding, [maps_of(each, height, width) for each in points])


class ImplicitBoundary(nn.Module):
    """im-Bound: self-attention and MLP, then features lifted where a boundary key point is seen."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.attend = Attention(channels, heads)
        self.think = perceptron(channels)
        self.points = nn.Linear(channels, 1)

    def forward(self, tokens: Tensor) -> tuple[Tensor, Tensor]:
        tokens = self.attend(tokens, tokens)
        tokens = tokens + self.think(tokens)
        logits = self.points(tokens)
        return tokens + tokens * logits.sigmoid(), logits


class ExplicitBoundary(nn.Module):
    """ex-Bound: the embedding reads the tokens and is added to each, which shows key points once more."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.read = Attention(channels, heads)
        self.think = perceptron(channels)
        self.tell = nn.Sequential(nn.LayerNorm(channels), nn.Linear(channels, channels))
        self.points = nn.Linear(channels, 1)

    def forward(self, tokens: Tensor, embedding: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        embedding = self.read(embedding, tokens)
        embedding = embedding + self.think(embedding)
        tokens = tokens + self.tell(embedding)
        logits = self.points(tokens)
        return tokens + tokens * logits.sigmoid(), embedding, logits


class CrossScaleBoundary(nn.Module):
    """X-Bound: each of two scales takes in the other's boundary embedding; joined at the finer one."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.told = nn.ModuleList(nn.Linear(channels, channels) for _ in range(2))
        self.think = nn.ModuleList(perceptron(channels) for _ in range(2))
        self.join = nn.Conv2d(2 * channels, channels, 1)

    def forward(self, fine: Tensor, coarse: Tensor, of_fine: Tensor, of_coarse: Tensor) -> Tensor:
        both = []
        for maps, embedding, told, think in zip(
            (fine, coarse), (of_coarse, of_fine), self.told, self.think, strict=True
        ):
            tokens = tokens_of(maps) + told(embedding)
            both.append(maps_of(tokens + think(tokens), *maps.shape[-2:]))
        return self.join(torch.cat([both[0], enlarged(both[1], fine)], dim=1))


class Attention(nn.Module):
    """Multi-head attention of ``queries`` to ``tokens``, both normalised, added to the queries."""

    def __init__(self, channels: int, heads: int) -> None:
        super().__init__()
        self.queries, self.tokens = nn.LayerNorm(channels), nn.LayerNorm(channels)
        self.attention = nn.MultiheadAttention(channels, heads, dropout=DROPOUT, batch_first=True)

    def forward(self, queries: Tensor, tokens: Tensor) -> Tensor:
        seen = self.tokens(tokens)
        found, _ = self.attention(self.queries(queries), seen, seen, need_weights=False)
        return queries + found


def perceptron(channels: int) -> nn.Sequential:
    """Return layer norm and the two layers behind it."""
    hidden = HIDDEN * channels
    return nn.Sequential(
        nn.LayerNorm(channels),
        nn.Linear(channels, hidden),
        nn.GELU(),
        nn.Dropout(DROPOUT),
        nn.Linear(hidden, channels),
        nn.Dropout(DROPOUT),
    )


def tokens_of(maps: Tensor) -> Tensor:
    """Return (N, C, h, w) maps as (N, h w, C) tokens."""
    return maps.flatten(2).transpose(1, 2)


def maps_of(tokens: Tensor, height: int, width: int) -> Tensor:
    """Return (N, h w, C) tokens as (N, C, h, w) maps."""
    return tokens.transpose(1, 2).unflatten(2, (height, width))


def sine_positions(height: int, width: int, channels: int, *, device: torch.device) -> Tensor:
    """Return (1, h w, C) sines and cosines of the row in the first half of the channels, of the column in the second.

    Vaswani et al. 2017, section 3.5, along both axes; ``channels`` is a multiple of 4.
    """
    rates = torch.exp(torch.arange(0, channels // 2, 2, device=device) * (-math.log(10_000) / (channels // 2)))
    axes = [torch.arange(length, device=device).unsqueeze(1) * rates for length in (height, width)]
    rows, columns = (torch.cat([angles.sin(), angles.cos()], dim=1) for angles in axes)
    grid = [rows.unsqueeze(1).expand(-1, width, -1), columns.unsqueeze(0).expand(height, -1, -1)]
    return torch.cat(grid, dim=2).flatten(0, 1).unsqueeze(0)


@torch.no_grad()
def boundary_points(masks: Tensor) -> Tensor:
    """Return (N, 1, H, W) fp32 maps that are 1 around the boundary key points of (N, 1, H, W) ``masks``, else 0.

    A key point is a pixel on the inner edge of the lesion where the lesion's share of a disc differs from what it is on
    a straight edge, and more so than elsewhere on the edge within reach: where the outline bends. Radius, reach and the
    spread of a point scale with the image; where the lesion runs out of the image there is no edge.
    """
    with torch.autocast(masks.device.type, enabled=False):
        masks, size = masks.float(), masks.shape[-1]
        edge = masks + _largest(-masks, 1)
        radius = max(1, round(DISC_RADIUS * size))
        steps = torch.arange(-radius, radius + 1, device=masks.device)
        disc = (steps.square().unsqueeze(1) + steps.square() <= radius**2).float().expand(1, 1, -1, -1)
        inside = F.conv2d(F.pad(masks, (radius,) * 4, mode="replicate"), disc)
        bend = edge * (inside - disc[..., radius:].sum()).abs() / disc.sum()
        reach = max(1, round(REACH * size))
        least = -_largest(edge - 1 - bend, reach)
        points = edge * (bend == _largest(bend, reach)) * (bend > least)
        return _largest(points, round(SPREAD * size))


def _largest(maps: Tensor, reach: int) -> Tensor:
    """Return the largest value of each square of ``2 * reach + 1`` pixels around a pixel, one axis after the other."""
    for kernel, padding in (((2 * reach + 1, 1), (reach, 0)), ((1, 2 * reach + 1), (0, reach))):
        maps = F.max_pool2d(maps, kernel, stride=1, padding=padding)
    return maps
