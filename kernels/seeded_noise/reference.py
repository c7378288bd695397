"""Seeded noise in plain torch: the definition of every number, on any device with float64."""

from __future__ import annotations

import math

import torch
from torch import Tensor

MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
KEY_STEPS = (0x9E3779B9, 0xBB67AE85)
ROUNDS = 10
LOW = 0xFFFFFFFF


def why_not(*tensors: Tensor) -> str | None:
    for tensor in tensors:
        if tensor.device.type == "mps":
            return "it computes in float64, which mps lacks"
    return None


def philox_u32(key: Tensor, counter: Tensor) -> Tensor:
    """Salmon et al. 2011, section 3.3; words are uint32 values in int64."""
    k0, k1 = key.unbind(-1)
    c0, c1, c2, c3 = counter.unbind(-1)
    for _ in range(ROUNDS):
        high0, low0 = _product(MULTIPLIERS[0], c0)
        high1, low1 = _product(MULTIPLIERS[1], c2)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0 = (k0 + KEY_STEPS[0]) & LOW
        k1 = (k1 + KEY_STEPS[1]) & LOW
    return torch.stack(torch.broadcast_tensors(c0, c1, c2, c3), dim=-1)


def seeded_normal(seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    """(N, count) float32: Box-Muller in float64 on the word pairs of each block."""
    pairs = _blocks(seeds, count, step, stream).double().unflatten(-1, (2, 2))
    radius = torch.sqrt(-2.0 * torch.log((pairs[..., 0] + 1.0) * 2.0**-32))
    angle = pairs[..., 1] * (2.0 * math.pi * 2.0**-32)
    normals = torch.stack((radius * torch.cos(angle), radius * torch.sin(angle)), dim=-1)
    return normals.flatten(1)[:, :count].float()


def seeded_uniform(seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    """(N, count) float32 in [0, 1): the upper 24 bits of each word."""
    words = _blocks(seeds, count, step, stream).flatten(1)[:, :count]
    return (words >> 8).float() * 2.0**-24


def _blocks(seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    """(N, ceil(count / 4), 4) words."""
    key = torch.stack((seeds & LOW, (seeds >> 32) & LOW), dim=-1)
    block = torch.arange(-(-count // 4), dtype=torch.int64, device=seeds.device)
    constants = [torch.full_like(block, value) for value in (step, stream, 0)]
    return philox_u32(key[:, None, :], torch.stack((block, *constants), dim=-1))


def _product(constant: int, word: Tensor) -> tuple[Tensor, Tensor]:
    """High and low 32 bits of constant * word; in halves, since the whole product overflows int64."""
    low = word * (constant & 0xFFFF)
    high = word * (constant >> 16) + (low >> 16)
    return high >> 16, ((high & 0xFFFF) << 16) | (low & 0xFFFF)
