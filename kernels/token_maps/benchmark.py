"""Attention to chosen keys, with gradients: the maps of every head as one writes them, and both ways of the op."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor

from ..measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender
from . import maps_pay, reference, sdpa

KEYS = 77  # of a prompt
CHOSEN = [2, 4]
TOLERANCE = 1e-5


def case(heads: int, tokens: int, depth: int, device: str) -> Case:
    """Two of 77 keys, float32: probabilities, and the gradients of their mean square."""
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(1, heads, tokens, depth, generator=rng).to(device)
    key = torch.randn(1, heads, KEYS, depth, generator=rng).to(device)
    places, scale = torch.tensor([CHOSEN], device=device), depth**-0.5

    def run(attention: Callable[[Tensor, Tensor], Tensor], dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        leaves = [tensor.to(dtype, copy=True).requires_grad_() for tensor in (query, key)]
        probabilities = attention(*leaves)
        return probabilities.detach(), *torch.autograd.grad(probabilities.square().mean(), leaves)

    def materialised(query: Tensor, key: Tensor) -> Tensor:
        return torch.softmax(query @ key.mT * scale, dim=-1).mean(1)[..., CHOSEN]

    def written_out(query: Tensor, key: Tensor) -> Tensor:
        return reference.token_attention(query, key, places, scale)

    def one_hot(query: Tensor, key: Tensor) -> Tensor:
        return sdpa.token_attention(query, key, places, scale)

    pays = maps_pay(query, key)
    ours = partial(Contender, tolerance=TOLERANCE, baseline=BEST_TORCH)
    contenders = (
        Contender("materialised", partial(run, materialised), "every map", TOLERANCE, REFERENCE_METHOD),
        ours("maps", partial(run, written_out), "lesionforge in plain torch, every map", automatic=pays),
        ours("SDPA", partial(run, one_hot), "lesionforge in plain torch, one-hot values", automatic=not pays),
    )
    shape = f"({heads}, {tokens}, {depth}), {KEYS} keys"
    return Case("token_attention", shape, contenders, partial(run, materialised, torch.float64), device)


def diagnostic_cases(device: str) -> list[Case]:
    """A small case of the op."""
    return [case(10, 1024, 64, device)]
