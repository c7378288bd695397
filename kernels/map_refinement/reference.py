"""The mean attention map and its power, written out: every N x N map exists, and autograd keeps them."""

from __future__ import annotations

import torch
from torch import Tensor


def mean_map(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """(B, N, N) mean over layers and heads of softmax(Q K^T scale)."""
    return torch.softmax(query @ key.mT * scale, dim=-1).mean(1)


def refine(query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float, strategy: str) -> Tensor:
    """(B, N, R): the matrix power as DiDGen's released code takes it. `strategy` is for the other backends."""
    return torch.linalg.matrix_power(mean_map(query, key, scale), steps) @ values


def why_not(*tensors: Tensor) -> str | None:
    return None
