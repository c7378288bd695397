"""Noise that a case owns: counter-based random numbers from Philox4x32-10.

Number e of a case (its row-major place in `shape`) comes from word e % 4 of block e // 4, where

    words(block) = Philox4x32-10(key=(seed mod 2^32, seed div 2^32), counter=(block, step, stream, 0))

so it depends on the case's seed, the step, the stream and its place, and on nothing else: not on the other cases, the
batch size, the shape beyond that place, threads or device. A block's words w0..w3 become

    normals    z0, z1 = r cos a, r sin a  of (w0, w1);  z2, z3 likewise of (w2, w3)          (Box-Muller)
               r = sqrt(-2 ln((w0 + 1) / 2^32)),  a = 2 pi w1 / 2^32, in float64, then rounded to float32
    uniforms   (w >> 8) / 2^24, exact in float32

Words and uniforms are equal bit for bit on every backend, normals agree within 1e-6. A normal and a uniform of one
(seed, step, stream) share their words: give two kinds of draws two streams.

Source: Salmon, Moraes, Dror, Shaw: "Parallel random numbers: as easy as 1, 2, 3", SC 2011.
"""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence

import torch
from torch import Tensor

from .. import native
from ..cuda import why_not as why_not_cuda
from ..dispatch import Backend, Op, unmeasured
from . import cpu, cuda, reference

__all__ = ["OPS", "philox_u32", "seeded_normal", "seeded_uniform", "stream_of"]

_philox = Op(
    "philox_u32",
    Backend("cpu", cpu.philox_u32, native.why_not),
    Backend("cuda", cuda.philox_u32, why_not_cuda, unmeasured),
    Backend("reference", reference.philox_u32, reference.why_not),
    probe=lambda device: (torch.arange(2, device=device), torch.arange(4 * 999, device=device).view(-1, 4)),
)
_normal = Op(
    "seeded_normal",
    Backend("cpu", cpu.seeded_normal, native.why_not),
    Backend("cuda", cuda.seeded_normal, why_not_cuda, unmeasured),
    Backend("reference", reference.seeded_normal, reference.why_not),
    probe=lambda device: (torch.arange(8, device=device), 999, 3, 7),
)
_uniform = Op(
    "seeded_uniform",
    Backend("cpu", cpu.seeded_uniform, native.why_not),
    Backend("cuda", cuda.seeded_uniform, why_not_cuda, unmeasured),
    Backend("reference", reference.seeded_uniform, reference.why_not),
    probe=lambda device: (torch.arange(8, device=device), 999, 3, 7),
)
OPS = (_philox, _normal, _uniform)

WORD = 1 << 32


def philox_u32(key: Tensor, counter: Tensor, *, backend: str = "auto") -> Tensor:
    """Philox4x32-10: key (..., 2) and counter (..., 4) -> (..., 4), leading dimensions broadcast.

    Words are uint32 values held in int64 tensors, since torch has hardly any arithmetic for uint32.
    Raises TypeError for another dtype, ValueError for another shape, another device or words outside [0, 2^32) (which
    a compiled graph does not check), BackendUnavailable if `backend` cannot serve.
    """
    for name, tensor, width in (("key", key, 2), ("counter", counter, 4)):
        if tensor.dtype != torch.int64:
            raise TypeError(f"{name} must be int64 with uint32 values, not {tensor.dtype}")
        if tensor.ndim == 0 or tensor.shape[-1] != width:
            raise ValueError(f"{name} must have shape (..., {width}), not {tuple(tensor.shape)}")
        # A compiled graph cannot stop for a look at the data.
        if not torch.compiler.is_compiling() and bool(((tensor < 0) | (tensor >= WORD)).any()):
            raise ValueError(f"{name} has words outside [0, 2**32)")
    if key.device != counter.device:
        raise ValueError(f"key is on {key.device}, counter on {counter.device}; both must be on one device")
    return _philox_u32(key, counter, backend)


def seeded_normal(
    seeds: Sequence[int] | Tensor,
    shape: Sequence[int],
    *,
    step: int = 0,
    stream: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Tensor:
    """Standard normals (N, *shape), row i a function of seeds[i], step and stream alone.

    seeds: N integers in [0, 2^64), or an int64 tensor (N,) with their bit patterns. step: number of the stochastic
    step, stream: `stream_of` the stage's name, both in [0, 2^32). The numbers are defined in float32; another
    floating dtype is converted from it.
    Raises TypeError or ValueError for anything else, BackendUnavailable if `backend` cannot serve.
    """
    keys, count = _checked(seeds, shape, step, stream, torch.device(device), dtype)
    return _seeded_normal(keys, count, step, stream, backend).reshape(len(keys), *shape).to(dtype)


def seeded_uniform(
    seeds: Sequence[int] | Tensor,
    shape: Sequence[int],
    *,
    step: int = 0,
    stream: int = 0,
    device: str | torch.device = "cpu",
    dtype: torch.dtype = torch.float32,
    backend: str = "auto",
) -> Tensor:
    """Uniform numbers (N, *shape) in [0, 1), multiples of 2^-24; arguments and errors as for `seeded_normal`.

    A dtype narrower than float32 would round numbers up to 1 and is refused.
    """
    if dtype not in (torch.float32, torch.float64):
        raise TypeError(f"seeded_uniform makes float32 or float64, not {dtype}: fewer bits would round up to 1")
    keys, count = _checked(seeds, shape, step, stream, torch.device(device), dtype)
    return _seeded_uniform(keys, count, step, stream, backend).reshape(len(keys), *shape).to(dtype)


def stream_of(name: str) -> int:
    """Stream of a stage or purpose: the first 4 bytes of BLAKE2b of its UTF-8 name, little-endian."""
    return int.from_bytes(hashlib.blake2b(name.encode()).digest()[:4], "little")


@torch.library.custom_op("lesionforge::philox_u32", mutates_args=())
def _philox_u32(key: Tensor, counter: Tensor, backend: str) -> Tensor:
    return _philox.choose(backend, key, counter).run(key, counter)


@_philox_u32.register_fake
def _(key: Tensor, counter: Tensor, backend: str) -> Tensor:
    return counter.new_empty((*torch.broadcast_shapes(key.shape[:-1], counter.shape[:-1]), 4))


@torch.library.custom_op("lesionforge::seeded_normal", mutates_args=())
def _seeded_normal(keys: Tensor, count: int, step: int, stream: int, backend: str) -> Tensor:
    return _normal.choose(backend, keys).run(keys, count, step, stream)


@torch.library.custom_op("lesionforge::seeded_uniform", mutates_args=())
def _seeded_uniform(keys: Tensor, count: int, step: int, stream: int, backend: str) -> Tensor:
    return _uniform.choose(backend, keys).run(keys, count, step, stream)


@_seeded_normal.register_fake
@_seeded_uniform.register_fake
def _(keys: Tensor, count: int, step: int, stream: int, backend: str) -> Tensor:
    return keys.new_empty((keys.shape[0], count), dtype=torch.float32)


def _checked(
    seeds: Sequence[int] | Tensor,
    shape: Sequence[int],
    step: int,
    stream: int,
    device: torch.device,
    dtype: torch.dtype,
) -> tuple[Tensor, int]:
    for name, value in (("step", step), ("stream", stream)):
        if not 0 <= operator.index(value) < WORD:
            raise ValueError(f"{name} must be in [0, 2**32), not {value}")
    if not dtype.is_floating_point:
        raise TypeError(f"dtype must be floating point, not {dtype}")
    if any(operator.index(size) < 0 for size in shape):
        raise ValueError(f"shape must have no negative size, not {tuple(shape)}")
    count = math.prod(shape)
    if count > 4 * WORD:
        raise ValueError(f"a case has at most 2**34 numbers a step, not {count}")
    return _bit_patterns(seeds).to(device), count


def _bit_patterns(seeds: Sequence[int] | Tensor) -> Tensor:
    if isinstance(seeds, Tensor):
        if seeds.dtype != torch.int64 or seeds.ndim != 1:
            raise TypeError(f"a tensor of seeds must be int64 of shape (N,), not {seeds.dtype} {tuple(seeds.shape)}")
        return seeds
    values = [operator.index(seed) for seed in seeds]
    for seed in values:
        if not 0 <= seed < 1 << 64:
            raise ValueError(f"a seed must be in [0, 2**64), not {seed}")
    # Bit patterns by hand: inductor has no uint64.
    return torch.tensor([seed - (seed >> 63 << 64) for seed in values], dtype=torch.int64)
