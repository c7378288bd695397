"""Leakage in Triton: rows gathered by region, scores computed again for the key's gradient, nothing of size N x N kept.

A first kernel goes over the keys for each row: first those that the row's region leaks to, then its own, so that one
product each serves the row's gradient. A second goes over a region's rows for each key. No number is added by more
than one program, so every run gives the same bits. Inputs keep their dtype, sums and probabilities are float32; for
the gradients' products probabilities are rounded to the inputs' dtype, as attention's own backward pass does.
Interpreted and compiled ahead of time in tests/kernels, measured on no GPU yet.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import triton_runtime
from ..attention_triton import LOG2_E, Tile, launch_options, why_not

__all__ = ["row_sums", "why_not"]

kernels = triton_runtime.kernels_of(__name__)
# The largest tiles that spill no registers on sm_80 and sm_90; heads of over 128 channels in float32 spill with any.
TILES = {
    (2, 64): Tile(64, 64, 4),
    (2, 128): Tile(64, 64, 8),
    (2, 256): Tile(32, 32, 4),
    (4, 64): Tile(32, 32, 8),
    (4, 128): Tile(32, 32, 8),
    (4, 256): Tile(16, 16, 4),
}


def row_sums(
    query: Tensor,
    key: Tensor,
    mask: Tensor,
    two_sided: bool,
    scale: float,
    query_gradient: Tensor | None = None,
    key_gradient: Tensor | None = None,
) -> Tensor:
    """As the reference's `row_sums`, in float32; gradients, if both are given, are written in their own dtype."""
    query, key, mask = query.contiguous(), key.contiguous(), mask.bool().contiguous()
    batch, layers, tokens, _ = query.shape
    if not mask.numel():
        return torch.zeros((batch, 1 + two_sided), dtype=torch.float32, device=query.device)
    # A stable order keeps the bits the same on every run.
    order = (~mask).to(torch.uint8).argsort(dim=-1, stable=True).to(torch.int32)
    inside = mask.sum(-1, dtype=torch.int32)
    leaked = torch.zeros((batch, layers, tokens), dtype=torch.float32, device=query.device)
    gradients = query_gradient is not None and key_gradient is not None
    log_sum = torch.empty_like(leaked) if gradients else leaked
    factors = (scale * LOG2_E, scale / layers)
    options = launch_options(query, TILES)
    rows, columns = -(-tokens // options["BLOCK_M"]), -(-tokens // options["BLOCK_N"])
    with torch.cuda.device_of(query):
        # Two regions may need a block more than all rows together.
        kernels().leaked_rows[(rows + two_sided, layers, batch)](
            query, key, order, inside, leaked, log_sum, query_gradient if gradients else leaked, layers, tokens,
            *factors, TWO_SIDED=two_sided, GRADIENTS=gradients, **options,
        )  # fmt: skip
        if gradients:
            kernels().key_gradients[(columns, layers, batch * (1 + two_sided))](
                query, key, order, inside, mask.to(torch.uint8), leaked, log_sum, key_gradient, batch, layers, tokens,
                *factors, **options,
            )  # fmt: skip
    shares = leaked.mean(1)
    regions = (mask, ~mask)[: 1 + two_sided]
    return torch.stack([torch.where(region, shares, 0).sum(-1) for region in regions], dim=-1)
