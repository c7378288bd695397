"""The attention operators at the sizes of Stable Diffusion: 64 x 64 and 96 x 96 latents, and SDXL-like heads."""

from __future__ import annotations

from itertools import product
from typing import NamedTuple

import torch

from lesionforge.kernels.map_leakage import benchmark as leakage
from lesionforge.kernels.map_refinement import benchmark as refinement
from lesionforge.kernels.measuring import Case
from lesionforge.kernels.token_maps import benchmark as token_maps

from .benchmark import Benchmark


class Maps(NamedTuple):
    """Layers x heads, tokens, channels of a head."""

    heads: int
    tokens: int
    depth: int


SHAPES = (Maps(10, 1024, 64), Maps(5, 4096, 64), Maps(8, 4096, 40), Maps(5, 9216, 64))
SMALL = Maps(2, 64, 16)


class Refinement(NamedTuple):
    """Maps, and how many maps are refined at once."""

    maps: Maps
    columns: int


class Loss(NamedTuple):
    """Maps, the share of the mask, the regions and dtype, and whether the released loop over pixels is timed."""

    maps: Maps
    share: float
    two_sided: bool
    dtype: torch.dtype
    pixel_loop: bool = False


def refinement_case(shape: Refinement, device: str) -> Case:
    return refinement.case(*shape.maps, shape.columns, device)


def loss_case(shape: Loss, device: str) -> Case:
    settings = shape._asdict()
    return leakage.case(*settings.pop("maps"), **settings, device=device)


def token_case(shape: Maps, device: str) -> Case:
    return token_maps.case(*shape, device)


def loss_shapes() -> tuple[Loss, ...]:
    """All combinations; the loop, which takes 20 s a gradient and more, at the smaller sizes of one of them."""
    loops = {Loss(maps, 0.25, False, torch.float32) for maps in SHAPES[:2]}
    combined = product(SHAPES, (0.05, 0.25), (False, True), (torch.float32, torch.bfloat16))
    return tuple(shape._replace(pixel_loop=shape in loops) for shape in (Loss(*settings) for settings in combined))


REFINEMENT = Benchmark(
    "attention_refinement",
    "attention maps to the power of 4, times 1 and 4 maps",
    tuple(Refinement(maps, columns) for maps in SHAPES for columns in (1, 4)),
    (Refinement(SMALL, 2),),
    refinement_case,
    ops=("attention_refinement",),
)
LAYOUT_LOSS = Benchmark(
    "layout_loss",
    "self-attention loss of layout guidance: value, dQ and dK",
    loss_shapes(),
    (Loss(SMALL, 0.25, True, torch.bfloat16), Loss(SMALL, 0.05, False, torch.float32, True)),
    loss_case,
    ops=("attention_leakage",),
)
TOKEN_ATTENTION = Benchmark(
    "token_attention",
    "cross-attention to two of 77 keys, with gradients",
    (Maps(20, 256, 64), Maps(10, 1024, 64), Maps(5, 4096, 64)),
    (SMALL,),
    token_case,
    ops=("token_attention",),
)
