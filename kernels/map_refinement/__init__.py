"""Refinement of attention maps by the self-attention of the same layers (DiDGen's mask, METHODS: A_CS = A_S^tau A_C).

    refined = A^steps @ values,    A = mean over layers and heads of softmax(Q K^T scale)        (B, N, N)

Two ways lead there. "matrix_free" applies A to the values `steps` times and never has a map; every time it computes the
scores again. "mean_map" computes them once, keeps the mean map of one case (4 N^2 bytes in float32, whatever the number
of layers), and multiplies it `steps` times.
"""

from __future__ import annotations

import operator

import torch
from torch import Tensor

from .. import attention_inputs
from ..dispatch import Backend, Op, unmeasured
from . import _triton, blocked, cpu, memory, reference

__all__ = ["OPS", "attention_refinement"]


def _probe(device: str) -> tuple[Tensor, Tensor, Tensor, int, float, str]:
    query, key = torch.linspace(-2, 2, 2 * 2 * 100 * 24, device=device).sin().view(2, 1, 2, 100, 24)
    return query, key, torch.linspace(0, 1, 100, device=device).view(1, 100, 1), 4, 1.0, "mean_map"


_refine = Op(
    "attention_refinement",
    Backend("cpu", cpu.refine, cpu.why_not),
    Backend("triton", _triton.refine, _triton.why_not, unmeasured),
    Backend("torch", blocked.refine, blocked.why_not),
    Backend("reference", reference.refine, reference.why_not),
    probe=_probe,
)
OPS = (_refine,)
STRATEGIES = ("auto", "matrix_free", "mean_map")


def attention_refinement(
    query: Tensor,
    key: Tensor,
    values: Tensor,
    *,
    steps: int = 4,
    scale: float | None = None,
    strategy: str = "auto",
    backend: str = "auto",
) -> Tensor:
    """(mean over L of softmax(query key^T scale))^steps @ values -> (B, N, R), in the dtype of `values`.

    query, key: (B, L, N, d) of one floating dtype, L = layers x heads. values: (B, N, R), floating. steps >= 0; 0 gives
    the values. scale: factor on the scores, 1 / sqrt(d) if None. Everything narrower than float64 is computed in
    float32, under autocast too; "cpu" may take float32 scores from sums of bfloat16 parts, with an error below 2^-16 of
    the products that they add up. Differentiable once, by computing the maps again.

    strategy: "matrix_free", "mean_map", or "auto": the mean map if there are two steps or more and it fits in half of
    the memory that is free; the two differ by rounding (error below 5e-6 for values in [0, 1]), so name one where the
    bits matter. backend: "reference" (every map, autograd through them), "torch", "cpu", "triton", or "auto".

    Raises TypeError or ValueError for other tensors or settings, BackendUnavailable if `backend` cannot serve.
    Source: Chen et al., DiDGen, section on mask generation; the power is of the matrix.
    """
    attention_inputs.check_query_key(query, key, same_tokens=True)
    if not values.dtype.is_floating_point:
        raise TypeError(f"values must be floating point, not {values.dtype}")
    if values.ndim != 3 or values.shape[:2] != (query.shape[0], query.shape[2]):
        raise ValueError(f"values must be ({query.shape[0]}, {query.shape[2]}, R), not {tuple(values.shape)}")
    attention_inputs.check_device("values", values, query)
    if operator.index(steps) < 0:
        raise ValueError(f"steps must be 0 or more, not {steps}")
    if strategy not in STRATEGIES:
        raise ValueError(f"strategy must be one of {', '.join(STRATEGIES)}, not {strategy!r}")
    factor = attention_inputs.checked_scale(scale, query)
    if backend == "reference":
        return _literally(query, key, values, steps, factor)
    return torch.ops.lesionforge.attention_refinement(query, key, values, steps, factor, strategy, backend)


def _literally(query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float) -> Tensor:
    dtype = attention_inputs.computing_dtype(torch.promote_types(query.dtype, values.dtype))
    with attention_inputs.without_autocast(query.device):
        return reference.refine(query.to(dtype), key.to(dtype), values.to(dtype), steps, scale, "").to(values.dtype)


@torch.library.custom_op("lesionforge::attention_refinement", mutates_args=())
def _op(query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float, strategy: str, backend: str) -> Tensor:
    # Chosen here and not by the caller, since a compiled graph cannot look for a native module.
    chosen = _refine.choose(backend, query, key, values)
    dtype = attention_inputs.computing_dtype(torch.promote_types(query.dtype, values.dtype))
    if values.numel() == 0 or steps == 0:
        return values.clone(memory_format=torch.contiguous_format)
    if strategy == "auto":
        strategy = memory.strategy_for(query.shape[2], steps, dtype, query.device)
    with attention_inputs.without_autocast(query.device):
        inputs = (query, key) if chosen.name in ("cpu", "triton") else (query.to(dtype), key.to(dtype))
        return chosen.run(*inputs, values.to(dtype), steps, scale, strategy).to(values.dtype)


@_op.register_fake
def _(query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float, strategy: str, backend: str) -> Tensor:
    return torch.empty_like(values, memory_format=torch.contiguous_format)


@torch.library.custom_op("lesionforge::attention_refinement_backward", mutates_args=())
def _backward_op(
    query: Tensor, key: Tensor, values: Tensor, grad: Tensor, steps: int, scale: float, strategy: str
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = attention_inputs.computing_dtype(torch.promote_types(query.dtype, values.dtype))
    given = (query, key, values, grad)
    if strategy == "auto":
        strategy = memory.strategy_for(query.shape[2], steps, dtype, query.device)
    with attention_inputs.without_autocast(query.device):
        wide = query.to(dtype), key.to(dtype), values.to(dtype), grad.to(dtype)
        made = blocked.gradients(*wide, steps, scale, strategy)
    of_query, of_key, of_values = (
        gradient.to(tensor.dtype, memory_format=torch.contiguous_format, copy=True)
        for gradient, tensor in zip(made, given, strict=False)
    )
    return of_query, of_key, of_values


@_backward_op.register_fake
def _(
    query: Tensor, key: Tensor, values: Tensor, grad: Tensor, steps: int, scale: float, strategy: str
) -> tuple[Tensor, Tensor, Tensor]:
    dense = torch.contiguous_format
    return (
        torch.empty_like(query, memory_format=dense),
        torch.empty_like(key, memory_format=dense),
        torch.empty_like(values, memory_format=dense),
    )


def _keep(ctx, inputs: tuple, output: Tensor) -> None:
    query, key, values, ctx.steps, ctx.scale, ctx.strategy, _ = inputs
    ctx.save_for_backward(query, key, values)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    gradients = torch.ops.lesionforge.attention_refinement_backward(
        *ctx.saved_tensors, grad.contiguous(), ctx.steps, ctx.scale, ctx.strategy
    )
    return *gradients, None, None, None, None


_op.register_autograd(_backward, setup_context=_keep)
