"""Leakage in plain torch at its best: rows gathered, scores of a block of rows used for value and gradients at once."""

from __future__ import annotations

import torch
from torch import Tensor

from .rows import regions

# Scores that a block of rows has over all layers: small enough for a CPU's cache, large enough for a GPU's queue.
BLOCK = {"cpu": 1 << 20, "cuda": 1 << 26}


def row_sums(
    query: Tensor,
    key: Tensor,
    mask: Tensor,
    two_sided: bool,
    scale: float,
    query_gradient: Tensor | None = None,
    key_gradient: Tensor | None = None,
) -> Tensor:
    """As the reference's `row_sums`, gradients written in place.

    With u = A_l v, v = 1 where the row's region leaks to, u[p] has the gradient A_l[p, q] (v[q] - u[p]) to the scores.
    """
    batch, layers, tokens, _ = query.shape
    sums = query.new_zeros(batch, 1 + two_sided)
    size = max(1, BLOCK.get(query.device.type, 1 << 24) // (layers * max(tokens, 1)))
    for case, column, rows, leaks in regions(mask, two_sided):
        for block in rows.split(size) if len(rows) else ():
            queries, leaks_to = query[case][:, block], leaks.to(query.dtype)
            maps = torch.softmax(queries * scale @ key[case].mT, dim=-1)
            leaked = maps @ leaks_to
            sums[case, column] += leaked.sum() / layers
            if query_gradient is None or key_gradient is None:
                continue
            of_scores = maps.mul_(leaks_to - leaked[..., None]).mul_(scale / layers)
            query_gradient[case][:, block] = of_scores @ key[case]
            key_gradient[column, case].baddbmm_(of_scores.mT, queries)
    return sums


def why_not(*tensors: Tensor) -> str | None:
    return None
