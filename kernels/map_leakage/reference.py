"""Leakage written out: the mean map exists, and autograd keeps the map of every layer."""

from __future__ import annotations

import torch
from torch import Tensor


def row_sums(
    query: Tensor,
    key: Tensor,
    mask: Tensor,
    two_sided: bool,
    scale: float,
    query_gradient: Tensor | None = None,
    key_gradient: Tensor | None = None,
) -> Tensor:
    """(B, C) sum of A[p, q] over p in M and q outside M; with `two_sided` also over p outside and q in M (C = 2).

    The backends other than this one write the gradients of these sums to `query_gradient` (B, L, N, d), which each row
    has in one column only, and `key_gradient` (C, B, L, N, d), both zero before. Here autograd does.
    """
    attention = torch.softmax(query @ key.mT * scale, dim=-1).mean(1)
    inside = mask.to(attention.dtype)
    outside = 1 - inside
    sums = [torch.einsum("bpq,bp,bq->b", attention, inside, outside)]
    if two_sided:
        sums.append(torch.einsum("bpq,bp,bq->b", attention, outside, inside))
    return torch.stack(sums, dim=-1)


def why_not(*tensors: Tensor) -> str | None:
    return None
