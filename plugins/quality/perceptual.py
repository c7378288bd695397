"""Perceptual distances of the LPIPS form between images and a gallery of real ones, in bounded memory.

Zhang et al., The Unreasonable Effectiveness of Deep Features as a Perceptual Metric (CVPR 2018), eq. 1: maps are
normalised to unit length over channels, squared differences weighted by channel, averaged over space, summed over
layers. With non-negative weights that is a squared Euclidean distance, so each image becomes one vector.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch.nn import functional

if TYPE_CHECKING:
    from collections.abc import Sequence

    from torch import Tensor

NORM_FLOOR = 1e-10
CHUNK_BYTES = 64 * 2**20
CACHED_BYTES = 2 * 2**20  # a chunk that stays in the cache while one query after the other is multiplied with it


def embed(maps: Sequence[Tensor], channel_weights: Sequence[Tensor] | None, map_size: int | None) -> Tensor:
    """Return (N, K) fp32 vectors whose squared Euclidean distance is the perceptual distance.

    Args:
        maps: (N, C, H, W) maps of each layer.
        channel_weights: non-negative (C,) weights of each layer, or None for ones.
        map_size: edge in cells to which larger normalised maps are averaged, or None for the distance on full maps.
            The reduced distance is never larger than the full one (Jensen).
    """
    weights = channel_weights or [None] * len(maps)
    parts = [_embed_layer(layer.float(), weight, map_size) for layer, weight in zip(maps, weights, strict=True)]
    return torch.cat(parts, dim=1)


def _embed_layer(layer: Tensor, weight: Tensor | None, map_size: int | None) -> Tensor:
    unit = layer / (layer.square().sum(1, keepdim=True).sqrt() + NORM_FLOOR)
    if weight is not None:
        unit = unit * weight.to(unit).sqrt()[:, None, None]
    height, width = unit.shape[2:]
    if map_size is not None and max(height, width) > map_size:
        height, width = min(height, map_size), min(width, map_size)
        unit = functional.adaptive_avg_pool2d(unit, (height, width))
    return unit.flatten(1) / (height * width) ** 0.5


def squared_distances(queries: Tensor, gallery: Tensor, *, apart: bool = False) -> Tensor:
    """Return (Q, R) float64 squared distances between (Q, K) and (R, K) vectors, a chunk of the gallery at a time.

    Args:
        apart: multiply each query on its own, so that no other query changes a bit of its distances.
    """
    limit = CACHED_BYTES if apart else CHUNK_BYTES
    chunk = max(1, limit // (8 * max(gallery.shape[1], 1)))
    blocks = [block.double() for block in queries.split(1 if apart else max(len(queries), 1))]
    return torch.cat([_to_chunk(blocks, part.double()) for part in gallery.split(chunk)], dim=1)


def _to_chunk(blocks: Sequence[Tensor], real: Tensor) -> Tensor:
    norms = real.square().sum(1)
    rows = [block.square().sum(1)[:, None] + norms - 2 * block @ real.T for block in blocks]
    return torch.cat(rows).clamp_min(0)


def nearest_mean(distances: Tensor, neighbours: int) -> Tensor:
    """Return the mean of each row's ``neighbours`` smallest distances, (Q,) from (Q, R)."""
    return distances.topk(neighbours, dim=1, largest=False).values.mean(1)


def own_nearest_mean(gallery: Tensor, neighbours: int) -> Tensor:
    """Return (R,) mean distances of each gallery vector to its nearest others, itself excluded."""
    rows = max(1, CHUNK_BYTES // (8 * max(gallery.shape[1], 1)))
    nearest = []
    for first, part in zip(range(0, len(gallery), rows), gallery.split(rows), strict=True):
        distances = squared_distances(part, gallery)
        itself = torch.arange(len(part), device=gallery.device)
        distances[itself, first + itself] = torch.inf
        nearest.append(nearest_mean(distances, neighbours))
    return torch.cat(nearest)
