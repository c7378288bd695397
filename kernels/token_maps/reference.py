"""Attention to chosen keys by its definition: the maps of every head, their mean, the columns of the tokens."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import attention_inputs


def token_attention(query: Tensor, key: Tensor, places: Tensor, scale: float) -> Tensor:
    """(B, N, T) in the dtype of `query`, for places (B, T); computed in float32, float64 in float64."""
    dtype = attention_inputs.computing_dtype(query.dtype)
    # The keys are the fewest numbers that the factor can be put on.
    maps = torch.softmax(query.to(dtype) @ (key.to(dtype) * scale).mT, dim=-1).mean(1)
    return maps.gather(2, places[:, None].expand(-1, query.shape[2], -1)).to(query.dtype)


def why_not(*tensors: Tensor) -> str | None:
    return None
