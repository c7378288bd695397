"""Every operation goes through torch.compile as one graph with inductor, and every operator passes opcheck."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from lesionforge import kernels
from lesionforge.kernels import (
    attention_leakage,
    attention_refinement,
    clean_masks,
    extract_masks,
    native,
    norm_act_conv2d,
    otsu_threshold,
    philox_u32,
    seeded_normal,
    seeded_uniform,
    token_attention,
)

CASES, LAYERS, TOKENS, DEPTH = 2, 2, 9, 4


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(sum(shape)))


QUERY, KEY = drawn(CASES, LAYERS, TOKENS, DEPTH), drawn(CASES, LAYERS, TOKENS, DEPTH).flip(2)
MAPS, VALUES = drawn(2, 1, 12, 12), drawn(CASES, TOKENS, 1)
INSIDE = torch.arange(TOKENS).expand(CASES, -1) % 3 == 0
X, WEIGHT, SCALE, OFFSET = drawn(2, 8, 6, 5), drawn(8, 8, 3, 3), drawn(8), drawn(8).neg()
SHIFT = drawn(2, 8)
SEEDS = torch.tensor([3, -1, 2**40])
WORDS = torch.arange(3 * 2 * 4).view(3, 2, 4) * 2**27

# Each operation amid arithmetic for inductor, and its arguments.
OPERATIONS: dict[str, tuple[Callable[..., Tensor], tuple[Tensor, ...]]] = {
    "norm_act_conv2d": (
        lambda x, weight: norm_act_conv2d(
            2 * x, SCALE, OFFSET, weight, None, groups=4, dilation=2, shift=SHIFT, residual=x
        ).sin(),
        (X, WEIGHT),
    ),
    "attention_refinement": (lambda q, k, values: attention_refinement(2 * q, k, values).sin(), (QUERY, KEY, VALUES)),
    "attention_leakage": (lambda q, k: attention_leakage(2 * q, k, INSIDE, regions="both").sin(), (QUERY, KEY)),
    "token_attention": (lambda q, k: token_attention(2 * q, k, [1, 4]).sin(), (QUERY, KEY)),
    "otsu_threshold": (lambda maps: otsu_threshold(2 * maps).sin(), (MAPS,)),
    "extract_masks": (lambda maps: extract_masks(2 * maps, 20, smoothing=0.5).sin(), (MAPS,)),
    "clean_masks": (lambda maps: clean_masks((2 * maps).relu()).sin(), (MAPS,)),
    "seeded_normal": (lambda seeds: seeded_normal(2 * seeds, (3, 5), step=2**32 - 1, stream=7).sin(), (SEEDS,)),
    "seeded_normal of integers": (lambda x: x + seeded_normal([0, 2**64 - 1], (8, 6, 5), dtype=x.dtype), (X,)),
    "seeded_uniform": (lambda seeds: seeded_uniform(2 * seeds, (7,), stream=2**32 - 1).sin(), (SEEDS,)),
    "philox_u32": (lambda counter: philox_u32(counter[:, :1, :2], counter + 1).sin(), (WORDS,)),
}
WITHOUT_GRADIENT = {"otsu_threshold", "extract_masks", "clean_masks", "seeded_normal", "seeded_uniform", "philox_u32"}
# What each operator of torch.library is checked on; the Triton ones are checked where Triton runs.
OPERATORS: dict[str, tuple[Any, ...]] = {
    "group_norm_silu": (X, SCALE, OFFSET, 4, 1e-5, "cpu"),
    "add_shift_residual_": (X.clone(), SHIFT, X, "cpu"),
    "attention_refinement": (QUERY, KEY, VALUES, 3, 0.5, "mean_map", "auto"),
    "attention_refinement_backward": (QUERY, KEY, VALUES, VALUES.flip(1), 3, 0.5, "auto"),
    "attention_leakage": (QUERY, KEY, INSIDE, True, 0.5, "auto", True),
    "attention_leakage_backward": (QUERY, KEY.expand(2, -1, -1, -1, -1), INSIDE, drawn(CASES, 2), "auto"),
    "otsu_threshold": (MAPS, 256, "auto"),
    "extract_masks": (MAPS, 20, 3, True, [0.25, 0.5, 0.25], "auto"),
    "clean_masks": ((MAPS > 0).byte(), 3, True, "auto"),
    "seeded_normal": (SEEDS, 9, 2**32 - 1, 7, "auto"),
    "seeded_uniform": (SEEDS, 9, 0, 2**32 - 1, "reference"),
    "philox_u32": (WORDS[:, :1, :2], WORDS, "auto"),
}
ELSEWHERE = {"dilated_conv2d": "it has a Triton backend alone"}


@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="inductor needs a C++ compiler")
@pytest.mark.parametrize("name", OPERATIONS)
def test_inductor_compiles_it_as_one_graph(name: str) -> None:
    work, arguments = OPERATIONS[name]
    compiled = torch.compile(work, fullgraph=True, backend="inductor")
    torch.testing.assert_close(compiled(*arguments), work(*arguments))
    if name in WITHOUT_GRADIENT:
        return
    made, expected = (
        torch.autograd.grad(run(*leaves).square().sum(), leaves)
        for run, leaves in ((run, [t.clone().requires_grad_() for t in arguments]) for run in (compiled, work))
    )
    torch.testing.assert_close(made, expected, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("name", ["attention_refinement", "attention_leakage", "token_attention"])
@pytest.mark.parametrize("dynamic", [None, True])
def test_one_graph_takes_heads_of_any_width(name: str, dynamic: bool | None) -> None:
    work, (query, key, *others) = OPERATIONS[name]
    compiled = torch.compile(work, fullgraph=True, backend="aot_eager", dynamic=dynamic)
    for width in (DEPTH, DEPTH - 1, DEPTH - 2):
        arguments = (query[..., :width], key[..., :width], *others)
        torch.testing.assert_close(compiled(*arguments), work(*arguments))


@pytest.mark.parametrize("name", OPERATORS)
def test_operators_pass_opcheck(name: str) -> None:
    arguments = OPERATORS[name]
    if "cpu" in arguments and native.why_missing():
        pytest.skip("the native module is not built")
    torch.library.opcheck(getattr(torch.ops.lesionforge, name), arguments)


def test_no_operator_is_forgotten() -> None:
    for name in kernels.__all__:
        getattr(kernels, name)
    registered = {name.partition("::")[2] for name in torch._C._dispatch_get_all_op_names() if "lesionforge::" in name}
    assert registered == {*OPERATORS, *ELSEWHERE}
