"""Refinement against DiDGen's released code, which has every map of every head, and against fused attention."""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn import functional

from ..measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender, backends_of
from . import OPS, attention_refinement

STEPS = 4
# Of the largest refined value, which is about a half for values in [0, 1].
TOLERANCE = 1e-5


def case(heads: int, tokens: int, depth: int, columns: int, device: str) -> Case:
    """One case's maps of `heads` layers and heads, `columns` maps to refine, float32."""
    rng = torch.Generator().manual_seed(tokens)
    query, key = (torch.randn(1, heads, tokens, depth, generator=rng).to(device) for _ in range(2))
    values = torch.rand(1, tokens, columns, generator=rng).to(device)

    def by_op(backend: str) -> Tensor:
        return attention_refinement(query, key, values, steps=STEPS, backend=backend)

    def in_float64() -> Tensor:
        given = query.double(), key.double(), values.double()
        return attention_refinement(*given, steps=STEPS, strategy="mean_map", backend="torch")

    contenders = (
        Contender("matrix power", lambda: released(query, key, values), "every map", TOLERANCE, REFERENCE_METHOD),
        Contender("SDPA", lambda: by_sdpa(query, key, values), "fused attention, a step each", TOLERANCE, BEST_TORCH),
        *backends_of(OPS[0], by_op, query, key, values, tolerance=TOLERANCE, but=("reference",)),
    )
    return Case(OPS[0].name, f"({heads}, {tokens}, {depth}), R = {columns}", contenders, in_float64, device)


def released(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
    """The power of the mean of the maps, as a matrix."""
    attention = torch.softmax(query @ key.mT * query.shape[-1] ** -0.5, dim=-1).mean(1)
    return torch.linalg.matrix_power(attention, STEPS) @ values


def by_sdpa(query: Tensor, key: Tensor, values: Tensor) -> Tensor:
    """Fused attention with the values padded to the head width, once a step."""
    heads, depth, columns = query.shape[1], query.shape[-1], values.shape[-1]
    for _ in range(STEPS):
        padded = functional.pad(values, (0, depth - columns))[:, None].expand(-1, heads, -1, -1)
        values = functional.scaled_dot_product_attention(query, key, padded)[..., :columns].mean(1)
    return values


def diagnostic_cases(device: str) -> list[Case]:
    """A small case of the op."""
    return [case(10, 1024, 64, 1, device)]
