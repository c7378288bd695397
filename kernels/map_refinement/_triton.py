"""Refinement in Triton: flash attention that adds up the layers, or one mean map from two passes over the scores.

Inputs keep their dtype: products of float16 and bfloat16 are exact in float32, in which everything else is done. Both
ways give the same bits on every run, and for a case whatever its batch. Interpreted and compiled ahead of time in
tests/kernels, measured on no GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import triton_runtime
from ..attention_triton import LOG2_E, Tile, launch_options, padded, why_not

__all__ = ["mean_attention", "mean_map", "refine", "why_not"]

kernels = triton_runtime.kernels_of(__name__)
# Programs a case that keep a large GPU busy; the layers are split until there are as many.
PROGRAMS = 256
WIDEST_VALUES = 64
# The largest tiles that spill no registers on sm_80 and sm_90; heads of over 128 channels in float32 spill with any.
TILES = {
    (2, 128): Tile(64, 64, 4),
    (2, 256): Tile(64, 32, 4),
    (4, 64): Tile(64, 32, 4),
    (4, 128): Tile(32, 16, 4),
    (4, 256): Tile(16, 32, 4),
}


def refine(query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float, strategy: str) -> Tensor:
    """(B, N, R) float32 by `strategy` "mean_map" or "matrix_free"."""
    query, key, values = query.contiguous(), key.contiguous(), values.to(torch.float32)
    if 0 in values.shape:
        return values
    with torch.cuda.device_of(query):
        if strategy == "matrix_free":
            for _ in range(steps):
                values = mean_attention(query, key, values, scale)
            return values
        out = torch.empty_like(values, memory_format=torch.contiguous_format)
        attention = values.new_empty(query.shape[2], query.shape[2])
        for case, refined in enumerate(values):
            mean_map(query[case], key[case], scale, attention)
            for _ in range(steps):
                refined = attention @ refined
            out[case] = refined
        return out


def mean_attention(query: Tensor, key: Tensor, values: Tensor, scale: float) -> Tensor:
    """(B, N, R) float32 = mean over layers of softmax(Q K^T scale) @ values; query and key (B, L, N, d) dense."""
    batch, layers, tokens, _ = query.shape
    options = launch_options(query, TILES)
    blocks = -(-tokens // options["BLOCK_M"])
    parts = min(layers, -(-PROGRAMS // blocks))
    made = []
    for columns in values.split(WIDEST_VALUES, dim=-1):
        width = columns.shape[-1]
        sums = torch.empty((parts, batch, tokens, width), dtype=torch.float32, device=query.device)
        kernels().mean_attention[(blocks, batch, parts)](
            query, key, columns.contiguous(), sums, layers, tokens, scale * LOG2_E,
            COLUMNS=width, PADDED_COLUMNS=1 if width == 1 else padded(width), **options,
        )  # fmt: skip
        made.append(sums.sum(0) / layers)
    return torch.cat(made, dim=-1)


def mean_map(query: Tensor, key: Tensor, scale: float, out: Tensor) -> None:
    """Writes the mean map of one case to `out` (N, N) float32; query and key (L, N, d) dense."""
    layers, tokens, _ = query.shape
    options = launch_options(query, TILES)
    rows, columns = -(-tokens // options["BLOCK_M"]), -(-tokens // options["BLOCK_N"])
    log_sum = torch.empty((layers, tokens), dtype=torch.float32, device=query.device)
    kernels().log_sums[(rows, layers)](query, key, log_sum, tokens, scale * LOG2_E, **options)
    kernels().mean_map[(rows, columns)](query, key, log_sum, out, layers, tokens, scale * LOG2_E, **options)
