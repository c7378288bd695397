"""What the attention ops ask of query and key, and the precision they compute in."""

from __future__ import annotations

import math

import torch
from torch import Tensor

FLOATS = (torch.float64, torch.float32, torch.bfloat16, torch.float16)


def check_query_key(query: Tensor, key: Tensor, *, same_tokens: bool) -> None:
    """query (B, L, N, d), key (B, L, S, d) of one floating dtype and device; S == N if `same_tokens`.

    Raises TypeError for the dtype, ValueError for shape or device.
    """
    if query.dtype not in FLOATS or key.dtype != query.dtype:
        raise TypeError(f"query and key must have one floating dtype, not {query.dtype} and {key.dtype}")
    if query.ndim != 4 or key.ndim != 4:
        raise ValueError(f"query and key must be (B, L, N, d), not {tuple(query.shape)} and {tuple(key.shape)}")
    kept = query.shape if same_tokens else (*query.shape[:2], key.shape[2], query.shape[3])
    if tuple(key.shape) != tuple(kept):
        raise ValueError(f"key must have shape {tuple(kept)} to go with the query, not {tuple(key.shape)}")
    if query.shape[1] == 0 or query.shape[3] == 0:
        raise ValueError(f"query must have a layer and a channel at least, not shape {tuple(query.shape)}")
    check_device("key", key, query)


def check_device(name: str, tensor: Tensor, query: Tensor) -> None:
    """Raises ValueError unless `tensor` is on the query's device."""
    if tensor.device != query.device:
        raise ValueError(f"{name} is on {tensor.device}, query on {query.device}; they must be on one device")


def checked_scale(scale: float | None, query: Tensor) -> float:
    """The factor on the scores: `scale`, or 1 / sqrt(d). Raises ValueError if that given is not finite."""
    if scale is None:
        return query.shape[-1] ** -0.5  # not through `math`, which a compiled graph of any width could not follow
    if not math.isfinite(scale):
        raise ValueError(f"scale must be finite, not {scale}")
    return float(scale)


def computing_dtype(dtype: torch.dtype) -> torch.dtype:
    """float64 stays; everything narrower is computed in float32."""
    return torch.float64 if dtype == torch.float64 else torch.float32


def without_autocast(device: torch.device) -> torch.autocast:
    """The attention ops compute in `computing_dtype` under autocast too: a sum over N keys does not bear bf16."""
    return torch.autocast(device.type, enabled=False)
