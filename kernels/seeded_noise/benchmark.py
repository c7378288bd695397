"""Seeded noise against torch's generators: one for each case, as diffusers takes them, and one for the whole batch."""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import partial
from typing import Any

import torch
from torch import Tensor

from ..measuring import REFERENCE_METHOD, Case, Contender, backends_of
from . import OPS, philox_u32, seeded_normal, seeded_uniform

OWN_NUMBERS = math.inf
TOLERANCES = {"philox_u32": 0.0, "seeded_normal": 1e-6, "seeded_uniform": 0.0}


def case(op: str, cases: int, shape: tuple[int, ...], device: str) -> Case:
    """Numbers of `cases` cases, each (*shape,), by the op "seeded_normal", "seeded_uniform" or "philox_u32"."""
    seeds = torch.arange(cases, device=device)
    by_seed, whole_batch = _draws(op, cases, shape, device)

    def by_op(backend: str) -> Tensor:
        if op == "philox_u32":
            return _words(seeds, math.prod(shape), backend).view(cases, *shape)
        draw = seeded_normal if op == "seeded_normal" else seeded_uniform
        return draw(seeds, shape, device=device, backend=backend)

    def by_generators() -> Tensor:
        return torch.stack([by_seed(torch.Generator(device).manual_seed(seed)) for seed in range(cases)])

    (known,) = (known for known in OPS if known.name == op)
    tolerance = TOLERANCES[op]
    contenders = (
        Contender("generators", by_generators, "a torch.Generator for each case", OWN_NUMBERS, REFERENCE_METHOD),
        Contender("one generator", whole_batch, "torch's noise that knows no cases", OWN_NUMBERS),
        *backends_of(known, by_op, seeds, tolerance=tolerance),
    )
    return Case(op, f"{cases} cases of {'x'.join(map(str, shape))}", contenders, partial(by_op, "reference"), device)


def diagnostic_cases(device: str) -> list[Case]:
    """Small cases of every op of this folder."""
    return [case(op.name, 16, (3, 64, 64), device) for op in OPS]


def _draws(
    op: str, cases: int, shape: tuple[int, ...], device: str
) -> tuple[Callable[[torch.Generator], Tensor], Callable[[], Tensor]]:
    """torch's draw of one case by its generator, and of all cases at once."""
    if op == "philox_u32":
        words: dict[str, Any] = {"low": 0, "high": 1 << 32, "device": device}
        return (
            lambda rng: torch.randint(size=shape, generator=rng, **words),
            lambda: torch.randint(size=(cases, *shape), **words),
        )
    draw = torch.randn if op == "seeded_normal" else torch.rand
    return lambda rng: draw(shape, generator=rng, device=device), lambda: draw(cases, *shape, device=device)


def _words(seeds: Tensor, count: int, backend: str) -> Tensor:
    """The first `count` words of each case, a multiple of 4."""
    key = torch.stack((seeds, torch.zeros_like(seeds)), -1)[:, None]
    block = torch.arange(count // 4, device=seeds.device)
    return philox_u32(key, torch.stack((block, *[torch.zeros_like(block)] * 3), -1), backend=backend)
