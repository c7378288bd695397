"""Leakage, its value and both gradients, against DiDGen's released loss and against fused attention.

The released code adds up the rows of the mask one pixel at a time inside autograd, on the materialised mean map. The
reference method here is its vectorised reading, which is faster; the loop itself is timed beside it where asked.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

from ..measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender, backends_of
from . import OPS, attention_leakage

TOLERANCES = {torch.float32: 5e-5, torch.bfloat16: 2e-2}
# Fused attention rounds its gradients' products in bfloat16: 4.6e-2 at 9216 tokens.
SDPA_TOLERANCES = {torch.float32: 5e-5, torch.bfloat16: 1e-1}
Loss = Callable[[Tensor, Tensor, Tensor, bool], Tensor]


def case(
    heads: int,
    tokens: int,
    depth: int,
    *,
    share: float,
    two_sided: bool,
    dtype: torch.dtype,
    device: str,
    pixel_loop: bool = False,
) -> Case:
    """A disc covers `share` of the tokens, a square number; query and key of one case and `heads` layers and heads."""
    rng = torch.Generator().manual_seed(tokens)
    query, key = (torch.randn(1, heads, tokens, depth, generator=rng).to(device, dtype) for _ in range(2))
    mask = disc(tokens, share).to(device)
    tolerance = TOLERANCES[dtype]

    def by_op(backend: str, dtype: torch.dtype = dtype) -> tuple[Tensor, ...]:
        regions = "both" if two_sided else "mask"
        return with_gradients(
            lambda q, k: attention_leakage(q, k, mask[None], regions=regions, backend=backend).sum(), query, key, dtype
        )

    def by(loss: Loss, dtype: torch.dtype) -> Callable[[], tuple[Tensor, ...]]:
        return lambda: with_gradients(lambda q, k: loss(q, k, mask, two_sided), query, key, dtype)

    contenders = [
        Contender("materialised", by(materialised, torch.float32), "every map, float32", tolerance, REFERENCE_METHOD),
        Contender("SDPA rows", by(by_sdpa, dtype), "fused attention of the rows", SDPA_TOLERANCES[dtype], BEST_TORCH),
        *backends_of(OPS[0], by_op, query, key, mask[None], tolerance=tolerance, but=("reference",)),
    ]
    if pixel_loop:
        contenders.append(Contender("pixel loop", by(released, torch.float32), "as released, float32", tolerance))
    sides = "both regions" if two_sided else "mask"
    shape = f"({heads}, {tokens}, {depth}), {share:.0%} {sides}, {str(dtype).removeprefix('torch.')}"
    return Case(OPS[0].name, shape, tuple(contenders), lambda: by_op("torch", torch.float64), device)


def disc(tokens: int, share: float) -> Tensor:
    """(tokens,) bool: the `share` of a square's pixels that is nearest to its middle."""
    edge = math.isqrt(tokens)
    axis = torch.linspace(-1, 1, edge)
    nearest = (axis[:, None] ** 2 + axis**2).flatten().argsort(stable=True)
    inside = torch.zeros(edge * edge, dtype=torch.bool)
    inside[nearest[: round(share * tokens)]] = True
    return inside


def with_gradients(
    loss: Callable[[Tensor, Tensor], Tensor], query: Tensor, key: Tensor, dtype: torch.dtype
) -> tuple[Tensor, ...]:
    """The loss and its gradients to query and key, which are cast to `dtype` first."""
    leaves = query.to(dtype).detach().requires_grad_(), key.to(dtype).detach().requires_grad_()
    value = loss(*leaves)
    return value.detach(), *torch.autograd.grad(value, leaves)


def materialised(query: Tensor, key: Tensor, mask: Tensor, two_sided: bool) -> Tensor:
    """m^T A (1 - m) on the mean of the maps; autograd keeps the map of every head."""
    attention = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1).mean((0, 1))
    terms = []
    for region in (mask, ~mask)[: 1 + two_sided]:
        inside, outside = region.to(attention.dtype), (~region).to(attention.dtype)
        terms.append(inside @ attention @ outside / (inside.sum() * outside.sum()))
    return torch.stack(terms).sum()


def released(query: Tensor, key: Tensor, mask: Tensor, two_sided: bool) -> Tensor:
    """A Python loop over the pixels of the mask."""
    attention = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1).mean((0, 1))
    loss = attention.new_zeros(())
    for region in (mask, ~mask)[: 1 + two_sided]:
        outside = (~region).to(attention.dtype)
        for pixel in region.nonzero().flatten():
            loss = loss + (attention[pixel] * outside).sum() / (outside.sum() * region.sum())
    return loss


def by_sdpa(query: Tensor, key: Tensor, mask: Tensor, two_sided: bool) -> Tensor:
    """Fused attention with the value 1 - M, padded to the head width, for the rows that count.

    Two-sided needs every row once: with u = A (1 - M), rows outside M leak 1 - u.
    """
    value = functional.pad((~mask).to(query.dtype)[:, None], (0, query.shape[-1] - 1)).expand_as(key)
    rows = query if two_sided else query[:, :, mask]
    leaked = functional.scaled_dot_product_attention(rows, key, value)[..., 0].float().mean((0, 1))
    if not two_sided:
        return leaked.mean() / (~mask).sum()
    return leaked[mask].mean() / (~mask).sum() + (1 - leaked[~mask]).mean() / mask.sum()


def diagnostic_cases(device: str) -> list[Case]:
    """A small case of the op."""
    return [case(10, 1024, 64, share=0.25, two_sided=True, dtype=torch.float32, device=device)]
