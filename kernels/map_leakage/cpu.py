"""Leakage in C++ (kernels/csrc/attention*.cpp): scores of a block of rows stay in the cache for value and gradients."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import native
from ..attention_native import dense, why_not
from .rows import regions

__all__ = ["row_sums", "scaled", "why_not"]


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
    """As the reference's `row_sums`; `instructions` "" are the widest here. `key_gradient` may hold anything before.

    Sums are float32, gradients of any dtype. With AMX, bfloat16 query and key are multiplied as they are, and for their
    gradients the probabilities are rounded to bfloat16.
    """
    batch, layers, tokens, depth = query.shape
    columns = 1 + two_sided
    found = list(regions(mask, two_sided))
    for case, column, rows, _ in found:
        if key_gradient is not None and not len(rows):
            key_gradient[column, case] = 0
    if not any(len(rows) for _, _, rows, _ in found):
        return torch.zeros(batch, columns)
    sums = torch.empty(batch, columns, dtype=torch.float64)
    query, key = dense(query, instructions), dense(key, instructions)
    rows = torch.cat([rows for _, _, rows, _ in found])
    offsets = torch.tensor([0] + [len(rows) for _, _, rows, _ in found]).cumsum(0)
    leaks = torch.stack([leaks for *_, leaks in found]).to(torch.float32)
    of_query, of_key = (
        given if given is None or given.dtype == query.dtype else given.to(query.dtype)
        for given in (query_gradient, key_gradient)
    )
    native.module().attention_leakage(
        query.data_ptr(), key.data_ptr(), rows.data_ptr(), offsets.data_ptr(), leaks.data_ptr(), sums.data_ptr(),
        0 if of_query is None else of_query.data_ptr(), 0 if of_key is None else of_key.data_ptr(),
        batch, columns, layers, tokens, depth, scale, torch.get_num_threads(), query.dtype == torch.bfloat16,
        instructions,
    )  # fmt: skip
    for given, made in ((query_gradient, of_query), (key_gradient, of_key)):
        if given is not None and made is not None and given is not made:
            given.copy_(made)
    return sums.to(torch.float32)


def scaled(
    of_query: Tensor, of_key: Tensor, by_row: Tensor, by_column: Tensor, instructions: str = ""
) -> tuple[Tensor, Tensor]:
    """`row_sums`' gradients times by_row (B, N), 0 where there are none, and by_column (C, B), summed over the columns.

    Those of float32 stay so; those of bfloat16 are computed in float32 and rounded once.
    """
    columns, batch, layers, tokens, depth = of_key.shape
    of_query, of_key = of_query.contiguous(), of_key.contiguous()
    by_row, by_column = by_row.to(torch.float32).contiguous(), by_column.to(torch.float32).contiguous()
    query, key = torch.empty_like(of_query), torch.empty_like(of_key[0])
    native.module().scale_leakage_gradients(
        of_query.data_ptr(), of_key.data_ptr(), by_row.data_ptr(), by_column.data_ptr(), query.data_ptr(),
        key.data_ptr(), batch, columns, layers, tokens, depth, torch.get_num_threads(),
        of_query.dtype == torch.bfloat16, instructions,
    )  # fmt: skip
    return query, key
