"""Seeded noise in C++ (kernels/csrc/seeded_noise.cpp), on as many threads as torch uses."""

from __future__ import annotations

import torch
from torch import Tensor

from .. import native


def philox_u32(key: Tensor, counter: Tensor) -> Tensor:
    leading = torch.broadcast_shapes(key.shape[:-1], counter.shape[:-1])
    key = key.expand(*leading, 2).contiguous()
    counter = counter.expand(*leading, 4).contiguous()
    out = torch.empty_like(counter)
    native.module().philox_u32(
        key.data_ptr(), counter.data_ptr(), out.data_ptr(), out.numel() // 4, torch.get_num_threads()
    )
    return out


def seeded_normal(seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    seeds, out = seeds.contiguous(), torch.empty(len(seeds), count, dtype=torch.float32, device=seeds.device)
    native.module().seeded_normal(
        seeds.data_ptr(), out.data_ptr(), len(seeds), count, step, stream, torch.get_num_threads()
    )
    return out


def seeded_uniform(seeds: Tensor, count: int, step: int, stream: int) -> Tensor:
    seeds, out = seeds.contiguous(), torch.empty(len(seeds), count, dtype=torch.float32, device=seeds.device)
    native.module().seeded_uniform(
        seeds.data_ptr(), out.data_ptr(), len(seeds), count, step, stream, torch.get_num_threads()
    )
    return out
