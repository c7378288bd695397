"""Refinement in C++ (kernels/csrc/attention*.cpp): scores, softmax and mean of a block of rows in the cache."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import native
from ..attention_native import dense, why_not

__all__ = ["mean_attention", "refine", "why_not"]


def refine(
    query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float, strategy: str, instructions: str = ""
) -> Tensor:
    """(B, N, R) float32 by `strategy` "mean_map" or "matrix_free"; `instructions` "" are the widest of this CPU.

    With AMX, bfloat16 query and key are multiplied as they are; all else is float32.
    """
    query, key, refined = dense(query, instructions), dense(key, instructions), values.to(torch.float32)
    batch, _, tokens, _ = query.shape
    if 0 in refined.shape or steps == 0:
        return refined
    out = torch.empty_like(refined, memory_format=torch.contiguous_format)
    attention = refined.new_empty(tokens, tokens) if strategy == "mean_map" and steps > 1 else None
    for case in range(batch):
        part = mean_attention(query[case], key[case], refined[case], attention, scale, instructions)
        for _ in range(steps - 1):
            part = (
                mean_attention(query[case], key[case], part, None, scale, instructions)
                if attention is None
                else attention @ part
            )
        out[case] = part
    return out


def mean_attention(
    query: Tensor, key: Tensor, values: Tensor, attention: Tensor | None, scale: float, instructions: str = ""
) -> Tensor:
    """A @ values (N, R) for query and key (L, N, d) of one case; A itself is written to `attention` (N, N) if given."""
    layers, tokens, depth = query.shape
    columns = values.shape[1]
    transposed, out = values.T.contiguous(), values.new_empty(tokens, columns)
    native.module().mean_attention(
        query.data_ptr(), key.data_ptr(), transposed.data_ptr(), 0 if attention is None else attention.data_ptr(),
        out.data_ptr(), layers, tokens, depth, columns, scale, torch.get_num_threads(), query.dtype == torch.bfloat16,
        instructions,
    )  # fmt: skip
    return out
