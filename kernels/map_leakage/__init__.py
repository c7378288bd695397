"""How much attention leaks out of a region: layout guidance's self-attention loss (DiDGen's L_SA), value and gradients.

    leakage = sum over p in M of w_p,    w_p = sum_q A[p, q] (1 - M[q]) / sum(1 - M),    A = mean_L softmax(Q K^T scale)

Only the rows p that are asked for are computed. Value and gradients come from one pass over blocks of rows: the
gradients of the sums to query and key are made with the value and kept for backward, which only scales them. So what
is kept is one array like the query and one like the key for each region, never anything of size N x N.
"""

from __future__ import annotations

import torch
from torch import Tensor

from .. import attention_inputs
from ..dispatch import Backend, Op, unmeasured
from . import _triton, blocked, cpu, reference

__all__ = ["OPS", "attention_leakage"]


def _probe(device: str) -> tuple[Tensor, Tensor, Tensor, bool, float]:
    query, key = torch.linspace(-2, 2, 2 * 2 * 100 * 24, device=device).sin().view(2, 1, 2, 100, 24)
    return query, key, torch.arange(100, device=device)[None] % 3 == 0, True, 1.0


_sums = Op(
    "attention_leakage",
    Backend("cpu", cpu.row_sums, cpu.why_not),
    Backend("triton", _triton.row_sums, _triton.why_not, unmeasured),
    Backend("torch", blocked.row_sums, blocked.why_not),
    Backend("reference", reference.row_sums, reference.why_not),
    probe=_probe,
)
OPS = (_sums,)


def attention_leakage(
    query: Tensor,
    key: Tensor,
    mask: Tensor,
    *,
    regions: str = "mask",
    reduction: str = "mean",
    scale: float | None = None,
    backend: str = "auto",
) -> Tensor:
    """Leakage of attention out of `mask`: (B,), or (B, 2) with regions="both", float32 (float64 for float64).

    query, key: (B, L, N, d) of one floating dtype, L = layers x heads. mask: (B, N), bool or numbers 0 and 1,
    a constant for gradients. regions: "mask" for rows in M leaking outside; "both" adds a second column, rows outside M
    leaking into M, divided by sum(M). reduction over the region's rows: "mean", or "sum" as the paper writes it. An
    empty or full mask leaks 0.
    scale: factor on the scores, 1 / sqrt(d) if None. Everything narrower than float64 is computed in float32, under
    autocast too, but for the gradients of bfloat16 tensors, for which "cpu" may round probabilities to bfloat16 (2^-9);
    those of float32 are then within 4e-5 of the largest. Differentiable once in query and key. backend: "reference",
    "torch", "cpu", "triton", or "auto".

    Raises TypeError or ValueError for other tensors or settings, BackendUnavailable if `backend` cannot serve.
    Source: Chen et al., DiDGen, layout guidance; the second column is the skin term of the two-sided loss.
    """
    _check(query, key, mask, regions, reduction)
    mask = mask.detach()
    factor = attention_inputs.checked_scale(scale, query)
    two_sided = regions == "both"
    if backend == "reference":
        dtype = attention_inputs.computing_dtype(query.dtype)
        with attention_inputs.without_autocast(query.device):
            sums = reference.row_sums(query.to(dtype), key.to(dtype), mask, two_sided, factor)
    else:
        wanted = torch.is_grad_enabled() and (query.requires_grad or key.requires_grad)
        sums, _, _ = torch.ops.lesionforge.attention_leakage(query, key, mask, two_sided, factor, backend, wanted)
    leakage = sums * _weights(mask, two_sided, reduction).to(sums.dtype)
    return leakage if two_sided else leakage[:, 0]


def _check(query: Tensor, key: Tensor, mask: Tensor, regions: str, reduction: str) -> None:
    attention_inputs.check_query_key(query, key, same_tokens=True)
    if mask.ndim != 2 or mask.shape != (query.shape[0], query.shape[2]):
        raise ValueError(f"mask must be ({query.shape[0]}, {query.shape[2]}), not {tuple(mask.shape)}")
    attention_inputs.check_device("mask", mask, query)
    # A compiled graph cannot stop for a look at the data.
    if mask.dtype != torch.bool and not torch.compiler.is_compiling() and bool(((mask != 0) & (mask != 1)).any()):
        raise ValueError("mask must hold 0 and 1 only; threshold it first")
    if regions not in ("mask", "both"):
        raise ValueError(f"regions must be mask or both, not {regions!r}")
    if reduction not in ("mean", "sum"):
        raise ValueError(f"reduction must be mean or sum, not {reduction!r}")


def _weights(mask: Tensor, two_sided: bool, reduction: str) -> Tensor:
    """(B, C) factor on the sums; 0 where a region is empty or full."""
    inside = mask.to(torch.float64).sum(-1)
    outside = mask.shape[-1] - inside
    # sum(1 - M) and sum(M) are the numbers of keys that the regions leak to, and of each other's rows.
    rows, keys = torch.stack((inside, outside), -1), torch.stack((outside, inside), -1)
    both = torch.where(rows * keys > 0, 1 / (keys.clamp(min=1) * (rows.clamp(min=1) if reduction == "mean" else 1)), 0)
    return both if two_sided else both[:, :1]


@torch.library.custom_op("lesionforge::attention_leakage", mutates_args=())
def _op(
    query: Tensor, key: Tensor, mask: Tensor, two_sided: bool, scale: float, backend: str, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    # Chosen here and not by the caller, since a compiled graph cannot look for a native module.
    chosen = _sums.choose(backend, query, key)
    dtype = query.dtype if chosen.name in ("cpu", "triton") else attention_inputs.computing_dtype(query.dtype)
    shape = query.shape if gradients else (0,)
    of_query = torch.zeros(shape, dtype=dtype, device=query.device)
    new = torch.empty if chosen.name == "cpu" else torch.zeros
    of_key = new((1 + two_sided, *shape), dtype=dtype, device=query.device)
    with attention_inputs.without_autocast(query.device):
        outputs = (of_query, of_key) if gradients else (None, None)
        sums = chosen.run(query.to(dtype), key.to(dtype), mask, two_sided, scale, *outputs)
    return sums, of_query.to(query.dtype), of_key.to(query.dtype)


@_op.register_fake
def _(
    query: Tensor, key: Tensor, mask: Tensor, two_sided: bool, scale: float, backend: str, gradients: bool
) -> tuple[Tensor, Tensor, Tensor]:
    dtype = attention_inputs.computing_dtype(query.dtype)
    shape = query.shape if gradients else (0,)
    return (
        query.new_empty(query.shape[0], 1 + two_sided, dtype=dtype),
        query.new_empty(shape),
        query.new_empty((1 + two_sided, *shape)),
    )


@torch.library.custom_op("lesionforge::attention_leakage_backward", mutates_args=())
def _backward_op(of_query: Tensor, of_key: Tensor, mask: Tensor, grad: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    other = grad[:, 1:] if grad.shape[1] == 2 else grad.new_zeros(())
    by_row = torch.where(mask.bool(), grad[:, :1], other)
    if _sums.choose(backend, of_query).name == "cpu" and of_query.dtype in (torch.float32, torch.bfloat16):
        return cpu.scaled(of_query, of_key, by_row, grad.T)
    by_column = grad.T[:, :, None, None, None]
    key = of_key[0] * by_column[0]
    if len(of_key) == 2:
        key = key + of_key[1] * by_column[1]
    return (of_query * by_row[:, None, :, None]).to(of_query.dtype), key.to(of_key.dtype)


@_backward_op.register_fake
def _(of_query: Tensor, of_key: Tensor, mask: Tensor, grad: Tensor, backend: str) -> tuple[Tensor, Tensor]:
    return of_query.new_empty(of_query.shape), of_key.new_empty(of_key.shape[1:])


def _keep(ctx, inputs: tuple, output: tuple[Tensor, Tensor, Tensor]) -> None:
    _, of_query, of_key = output
    ctx.backend = inputs[5]
    ctx.mark_non_differentiable(of_query, of_key)
    ctx.set_materialize_grads(False)  # of these two: they are as large as the inputs
    ctx.save_for_backward(inputs[2], of_query, of_key)


class _Once(torch.autograd.Function):
    """Gives gradients on. They hang on no tensor of the graph, so torch would take their own gradient to be zero."""

    @staticmethod
    def forward(ctx, of_query: Tensor, of_key: Tensor) -> tuple[Tensor, Tensor]:
        return of_query, of_key

    @staticmethod
    def backward(ctx, *_unused: Tensor) -> None:
        raise RuntimeError("attention_leakage is differentiable once only, but for its backend 'reference'")


def _backward(ctx, grad: Tensor | None, *_unused: None) -> tuple[Tensor | None, ...]:
    if grad is None:
        return (None,) * 7
    mask, of_query, of_key = ctx.saved_tensors
    query, key = torch.ops.lesionforge.attention_leakage_backward(of_query, of_key, mask, grad, ctx.backend)
    if torch.is_grad_enabled():  # by create_graph
        query, key = _Once.apply(query.requires_grad_(), key.requires_grad_())
    return query, key, None, None, None, None, None


_op.register_autograd(_backward, setup_context=_keep)
