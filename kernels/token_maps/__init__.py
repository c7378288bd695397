"""Probability that pixels attend to chosen text tokens: the cross-attention maps of layout losses and masks.

    out[b, n, t] = mean over L of softmax(Q K^T scale)[b, l, n, tokens[t]]

One-hot values through torch's fused attention: over the 77 keys of a prompt a kernel of our own would not pay.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional

from .. import attention_inputs

__all__ = ["token_attention"]


def token_attention(
    query: Tensor, key: Tensor, tokens: Sequence[int] | Tensor, *, scale: float | None = None
) -> Tensor:
    """Mean attention of N pixels to T chosen keys -> (B, N, T) in the dtype of `query`; differentiable.

    query: (B, L, N, d), key: (B, L, S, d), of one floating dtype, L = layers x heads. tokens: places in [0, S), T
    integers or an integer tensor (T,), or (B, T) for each case its own. scale: factor on the scores, 1 / sqrt(d) if
    None.
    Raises TypeError or ValueError for anything else.
    """
    attention_inputs.check_query_key(query, key, same_tokens=False)
    factor = attention_inputs.checked_scale(scale, query)
    places = _places(tokens, key)
    one_hot = (places[:, None, :] == torch.arange(key.shape[2], device=key.device)[:, None]).to(query.dtype)
    width, parts = query.shape[-1], []
    # torch's flash attention on CPU asks for values as wide as the heads; more tokens than that take several passes.
    for columns in one_hot.split(width, dim=-1):
        values = functional.pad(columns, (0, width - columns.shape[-1]))[:, None].expand(-1, query.shape[1], -1, -1)
        attended = functional.scaled_dot_product_attention(query, key, values, scale=factor)
        parts.append(attended[..., : columns.shape[-1]].mean(1))
    return torch.cat(parts, dim=-1)


def _places(tokens: Sequence[int] | Tensor, key: Tensor) -> Tensor:
    """(B, T) int64 on the key's device."""
    given = tokens if isinstance(tokens, Tensor) else torch.tensor(list(tokens), dtype=torch.int64, device=key.device)
    if given.dtype == torch.bool or given.dtype.is_floating_point or given.dtype.is_complex:
        raise TypeError(f"tokens must be integers, not {given.dtype}")
    attention_inputs.check_device("tokens", given, key)
    if given.ndim not in (1, 2) or (given.ndim == 2 and given.shape[0] != key.shape[0]):
        raise ValueError(f"tokens must have shape (T,) or ({key.shape[0]}, T), not {tuple(given.shape)}")
    # A compiled graph cannot stop for a look at the data.
    if not torch.compiler.is_compiling() and bool(((given < 0) | (given >= key.shape[2])).any()):
        raise ValueError(f"tokens must be in [0, {key.shape[2]}), not {given.tolist()}")
    return given.to(torch.int64).expand(key.shape[0], -1)
