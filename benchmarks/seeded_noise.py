"""Noise that a case owns."""

from __future__ import annotations

from typing import NamedTuple

from lesionforge.kernels.measuring import Case
from lesionforge.kernels.seeded_noise import benchmark

from .benchmark import Benchmark


class Noise(NamedTuple):
    """Op, number of cases, shape of a case."""

    op: str
    cases: int
    shape: tuple[int, ...]


def noise_case(shape: Noise, device: str) -> Case:
    return benchmark.case(*shape, device)


OPS = ("philox_u32", "seeded_normal", "seeded_uniform")
BENCHMARK = Benchmark(
    "seeded_noise",
    "Philox words, normals and uniforms by the case's seed",
    (*(Noise(op, 32, (3, 64, 64)) for op in OPS), Noise("seeded_normal", 8, (4, 64, 64))),
    tuple(Noise(op, 2, (3, 8, 8)) for op in OPS),
    noise_case,
    ops=OPS,
)
