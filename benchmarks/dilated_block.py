"""The residual block's unit at the sizes of a U-Net's levels."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch

from lesionforge.kernels.measuring import Case
from lesionforge.kernels.norm_act_conv import benchmark

from .benchmark import Benchmark


class Block(NamedTuple):
    """Cases, channels, edge in pixels."""

    cases: int
    channels: int
    edge: int
    dilation: int
    dtype: torch.dtype


LEVELS = ((8, 128, 256), (8, 128, 64), (4, 256, 32), (8, 512, 8))


def block_case(shape: Block, device: str) -> Case:
    if device == "cpu" and shape.edge == 256:  # eight cases would take seconds a turn
        shape = shape._replace(cases=1)
    return benchmark.case(*shape, device)


BENCHMARK = Benchmark(
    "dilated_block",
    "group norm, SiLU, dilated convolution, shift and residual in one operation",
    tuple(Block(*level, *rest) for level, *rest in product(LEVELS, (1, 2, 4), (torch.float32, torch.bfloat16))),
    (Block(2, 32, 8, 2, torch.float32), Block(2, 32, 8, 2, torch.bfloat16)),
    block_case,
    ops=("norm_act_conv2d",),
)
