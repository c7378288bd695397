"""Leakage in C++ (kernels/csrc/attention*.cpp): scores of 24 rows stay in the cache for value and both gradients."""

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
    """As the reference's `row_sums`, in float32, gradients added in place; `instructions` "" are the widest here."""
    batch, layers, tokens, depth = query.shape
    columns = 1 + two_sided
    found = list(regions(mask, two_sided))
    sums = torch.zeros(batch, columns, dtype=torch.float64)
    if not any(len(rows) for _, _, rows, _ in found):
        return sums.to(torch.float32)
    query, key = dense(query), dense(key)
    rows = torch.cat([rows for _, _, rows, _ in found])
    offsets = torch.tensor([0] + [len(rows) for _, _, rows, _ in found]).cumsum(0)
    leaks = torch.stack([leaks for *_, leaks in found]).to(torch.float32)
    # The kernel's tasks go case by case, columns inside.
    of_key = None if key_gradient is None else torch.zeros(batch, columns, layers, tokens, depth)
    native.module().attention_leakage(
        query.data_ptr(), key.data_ptr(), rows.data_ptr(), offsets.data_ptr(), leaks.data_ptr(), sums.data_ptr(),
        0 if query_gradient is None else query_gradient.data_ptr(), 0 if of_key is None else of_key.data_ptr(),
        batch, columns, layers, tokens, depth, scale, torch.get_num_threads(), instructions,
    )  # fmt: skip
    if key_gradient is not None and of_key is not None:
        key_gradient.copy_(of_key.transpose(0, 1))
    return sums.to(torch.float32)
