"""Leakage in C++ (kernels/csrc/attention*.cpp): scores of a block of rows stay in the cache for value and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import native
from ..attention_native import dense, why_not
from .rows import regions

__all__ = ["row_sums", "why_not"]


def row_sums(
    query: Tensor,
    key: Tensor,
    mask: Tensor,
    two_sided: bool,
    scale: float,
    query_gradient: Tensor | None = None,
    key_gradient: Tensor | None = None,
    instructions: str = "",
) -> Tensor:
    """As the reference's `row_sums`, gradients added in place; `instructions` "" are the widest here.

    Sums and outputs are float32. With AMX, bfloat16 query and key are multiplied as they are, and for their gradients
    the probabilities are rounded to bfloat16.
    """
    batch, layers, tokens, depth = query.shape
    columns = 1 + two_sided
    found = list(regions(mask, two_sided))
    if not any(len(rows) for _, _, rows, _ in found):
        return torch.zeros(batch, columns)
    sums = torch.empty(batch, columns, dtype=torch.float64)
    query, key = dense(query, instructions), dense(key, instructions)
    rows = torch.cat([rows for _, _, rows, _ in found])
    offsets = torch.tensor([0] + [len(rows) for _, _, rows, _ in found]).cumsum(0)
    leaks = torch.stack([leaks for *_, leaks in found]).to(torch.float32)
    native.module().attention_leakage(
        query.data_ptr(), key.data_ptr(), rows.data_ptr(), offsets.data_ptr(), leaks.data_ptr(), sums.data_ptr(),
        0 if query_gradient is None else query_gradient.data_ptr(),
        0 if key_gradient is None else key_gradient.data_ptr(),
        batch, columns, layers, tokens, depth, scale, torch.get_num_threads(), query.dtype == torch.bfloat16,
        instructions,
    )  # fmt: skip
    return sums.to(torch.float32)
