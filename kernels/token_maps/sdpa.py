"""Attention to chosen keys by torch's fused attention: a value is the key's one-hot row, so no map is written."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional


def token_attention(query: Tensor, key: Tensor, places: Tensor, scale: float) -> Tensor:
    """(B, N, T) in the dtype of `query`, for places (B, T); each layer's probabilities are rounded to that dtype."""
    one_hot = (places[:, None, :] == torch.arange(key.shape[2], device=key.device)[:, None]).to(query.dtype)
    width, parts = query.shape[-1], []
    # torch's flash attention on CPU asks for values as wide as the heads; more tokens than that take several passes.
    for columns in one_hot.split(width, dim=-1):
        values = functional.pad(columns, (0, width - columns.shape[-1]))[:, None].expand(-1, query.shape[1], -1, -1)
        attended = functional.scaled_dot_product_attention(query, key, values, scale=scale)
        parts.append(attended[..., : columns.shape[-1]].mean(1))
    return torch.cat(parts, dim=-1)
