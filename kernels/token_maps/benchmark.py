"""Attention to chosen keys, with gradients, against the maps of every head: what one-hot values save."""

from __future__ import annotations

import torch
from torch import Tensor

from ..measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender
from . import token_attention

KEYS = 77  # of a prompt
CHOSEN = [2, 4]
TOLERANCE = 1e-5


def case(heads: int, tokens: int, depth: int, device: str) -> Case:
    """Two of 77 keys, float32: probabilities, and the gradients of their mean square."""
    rng = torch.Generator().manual_seed(0)
    query = torch.randn(1, heads, tokens, depth, generator=rng).to(device)
    key = torch.randn(1, heads, KEYS, depth, generator=rng).to(device)

    def run(probabilities: Tensor, leaves: tuple[Tensor, Tensor]) -> tuple[Tensor, ...]:
        return probabilities.detach(), *torch.autograd.grad(probabilities.square().mean(), leaves)

    def by_op(dtype: torch.dtype = torch.float32) -> tuple[Tensor, ...]:
        leaves = query.to(dtype).detach().requires_grad_(), key.to(dtype).detach().requires_grad_()
        return run(token_attention(*leaves, CHOSEN), leaves)

    def materialised() -> tuple[Tensor, ...]:
        leaves = query.detach().requires_grad_(), key.detach().requires_grad_()
        maps = torch.softmax(leaves[0] @ leaves[1].mT * depth**-0.5, dim=-1).mean(1)
        return run(maps[..., CHOSEN], leaves)

    contenders = (
        Contender("materialised", materialised, "every map", TOLERANCE, REFERENCE_METHOD),
        Contender("SDPA", by_op, "lesionforge: one-hot values, plain torch", TOLERANCE, BEST_TORCH, automatic=True),
    )
    shape = f"({heads}, {tokens}, {depth}), {KEYS} keys"
    return Case("token_attention", shape, contenders, lambda: by_op(torch.float64), device)


def diagnostic_cases(device: str) -> list[Case]:
    """A small case of the op."""
    return [case(10, 1024, 64, device)]
