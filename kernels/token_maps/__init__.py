"""Probability that pixels attend to chosen text tokens: the cross-attention maps of layout losses and masks.

    out[b, n, t] = mean over L of softmax(Q K^T scale)[b, l, n, tokens[t]]

Plain torch in two ways, since over the 77 keys of a prompt a kernel of our own would not pay: the maps written out, or
one-hot values through torch's fused attention. In main memory the first is faster while keys are few.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from .. import attention_inputs
from ..dispatch import Backend, Op
from . import reference, sdpa

__all__ = ["OPS", "token_attention"]

FEW_KEYS = 128  # measured on a CPU: up to here float32 is faster written out, bfloat16 with gradients is, too
MOST_SCORES = 1 << 28  # maps above 1 GiB of float32 are not written out


def _probe(device: str) -> tuple[Tensor, Tensor, Tensor, float]:
    query, key = torch.linspace(-2, 2, 2 * 2 * 100 * 24, device=device).sin().view(2, 1, 2, 100, 24)
    return query, key, torch.tensor([[3, 0, 3]], device=device), 1.0


def _few_keys(*tensors: Tensor) -> str | None:
    if tensors and not maps_pay(*tensors[:2]):
        return None
    return f"in main memory the maps written out are faster for up to {FEW_KEYS} keys"


_attention = Op(
    "token_attention",
    Backend("sdpa", sdpa.token_attention, reference.why_not, _few_keys),
    Backend("reference", reference.token_attention, reference.why_not),
    probe=_probe,
)
OPS = (_attention,)


def token_attention(
    query: Tensor, key: Tensor, tokens: Sequence[int] | Tensor, *, scale: float | None = None
) -> Tensor:
    """Mean attention of N pixels to T chosen keys -> (B, N, T) in the dtype of `query`; differentiable.

    query: (B, L, N, d), key: (B, L, S, d), of one floating dtype, L = layers x heads. tokens: places in [0, S), T
    integers or an integer tensor (T,), or (B, T) for each case its own. scale: factor on the scores, 1 / sqrt(d) if
    None. Scores and softmax are float32 at least, under autocast too; half precision is rounded to on the way out, by
    fused attention already before the mean.
    Raises TypeError or ValueError for anything else.
    """
    attention_inputs.check_query_key(query, key, same_tokens=False)
    factor = attention_inputs.checked_scale(scale, query)
    places = _places(tokens, key)
    # Without the dispatcher, whose log would break a compiled graph.
    chosen = _attention.backends["reference" if maps_pay(query, key) else "sdpa"]
    with attention_inputs.without_autocast(query.device):
        return chosen.run(query, key, places, factor)


def maps_pay(query: Tensor, key: Tensor) -> bool:
    """Whether the maps are written out: in main memory, for few keys; other devices have not been measured."""
    scores = query.shape[0] * query.shape[1] * query.shape[2] * key.shape[2]
    return query.device.type == "cpu" and key.shape[2] <= FEW_KEYS and scores <= MOST_SCORES


def _places(tokens: Sequence[int] | Tensor, key: Tensor) -> Tensor:
    """(B, T) int64 on the key's device."""
    given = tokens if isinstance(tokens, Tensor) else _tensor(tokens, key.device)
    if given.dtype == torch.bool or given.dtype.is_floating_point or given.dtype.is_complex:
        raise TypeError(f"tokens must be integers, not {given.dtype}")
    attention_inputs.check_device("tokens", given, key)
    if given.ndim not in (1, 2) or (given.ndim == 2 and given.shape[0] != key.shape[0]):
        raise ValueError(f"tokens must have shape (T,) or ({key.shape[0]}, T), not {tuple(given.shape)}")
    # A compiled graph cannot stop for a look at the data.
    if not torch.compiler.is_compiling() and bool(((given < 0) | (given >= key.shape[2])).any()):
        raise ValueError(f"tokens must be in [0, {key.shape[2]}), not {given.tolist()}")
    return given.to(torch.int64).expand(key.shape[0], -1)


def _tensor(tokens: Sequence[int], device: torch.device) -> Tensor:
    """In the dtype that the numbers have, so that none is cut to an integer; without any it says nothing."""
    return torch.tensor(list(tokens), dtype=None if len(tokens) else torch.int64, device=device)
