"""Seeded noise in CUDA (kernels/csrc/cuda/seeded_noise.cu): a thread makes a block of four numbers.

It computes as the C++ backend does, operation by operation, and so makes the same bits.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import cuda


def philox_u32(key: Tensor, counter: Tensor) -> Tensor:
    leading = torch.broadcast_shapes(key.shape[:-1], counter.shape[:-1])
    key = key.expand(*leading, 2).contiguous()
    counter = counter.expand(*leading, 4).contiguous()
    out = torch.empty_like(counter)
    cuda.launch("philox_u32", out.device, key.data_ptr(), counter.data_ptr(), out.data_ptr(), out.numel() // 4)
    return out


def seeded_normal(seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    return _filled("seeded_normal", seeds, count, step, stream)


def seeded_uniform(seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    return _filled("seeded_uniform", seeds, count, step, stream)


def _filled(function: str, seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    seeds, out = seeds.contiguous(), torch.empty(len(seeds), count, dtype=torch.float32, device=seeds.device)
    cuda.launch(function, out.device, seeds.data_ptr(), out.data_ptr(), len(seeds), count, step, stream)
    return out
