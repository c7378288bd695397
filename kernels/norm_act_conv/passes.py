"""The fused pieces as torch operators (`torch.ops.lesionforge.*`), so that autograd and torch.compile know them.

None of them has a rule for autocast: each keeps the dtype of its first tensor and computes in float32 inside. The
library's convolution between them is autocast as ever, with its cache of cast weights.
"""

from __future__ import annotations

from types import ModuleType

import torch
from torch import Tensor

from . import _triton, cpu
from .reference import layout_of


def _implementation(backend: str) -> ModuleType:
    return cpu if backend == "cpu" else _triton


@torch.library.custom_op("lesionforge::group_norm_silu", mutates_args=())
def group_norm_silu(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float, backend: str) -> Tensor:
    """silu(group_norm(x)) in x's dtype, channels-last if x is, else contiguous."""
    _refuse(backend, x)
    return _implementation(backend).group_norm_silu(x, gamma, beta, groups, eps)


@group_norm_silu.register_fake
def _(x: Tensor, gamma: Tensor, beta: Tensor, groups: int, eps: float, backend: str) -> Tensor:
    return torch.empty_like(x, memory_format=layout_of(x))


def _keep(ctx, inputs: tuple, output: Tensor) -> None:
    x, gamma, beta, ctx.groups, ctx.eps, _ = inputs
    ctx.save_for_backward(x, gamma, beta)


def _backward(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    """Torch's own formulas on a normalisation that is computed again: only x is kept from the forward."""
    x, gamma, beta = ctx.saved_tensors
    wide, scale, offset = x.float(), gamma.float(), beta.float()
    cases, channels, height, width = x.shape
    shape = (cases, channels, height * width, ctx.groups)
    normal, mean, inverse = torch.ops.aten.native_group_norm(wide, scale, offset, *shape, ctx.eps)
    inner = torch.ops.aten.silu_backward(grad.float(), normal)
    wanted = list(ctx.needs_input_grad[:3])
    of_x, of_gamma, of_beta = torch.ops.aten.native_group_norm_backward(
        inner.contiguous(), wide.contiguous(), mean, inverse, scale, *shape, wanted
    )
    pairs = zip((of_x, of_gamma, of_beta), (x, gamma, beta), wanted, strict=True)
    return *(made.to(given.dtype) if wants else None for made, given, wants in pairs), None, None, None


group_norm_silu.register_autograd(_backward, setup_context=_keep)


@torch.library.custom_op("lesionforge::add_shift_residual_", mutates_args={"y"})
def add_shift_residual_(y: Tensor, shift: Tensor | None, residual: Tensor | None, backend: str) -> None:
    """y += shift[:, :, None, None] + residual, in place; only for tensors that need no gradient."""
    _refuse(backend, y)
    _implementation(backend).add_shift_residual_(y, shift, residual)


@torch.library.custom_op("lesionforge::dilated_conv2d", mutates_args=())
def dilated_conv2d(
    x: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor | None, residual: Tensor | None, dilation: int
) -> Tensor:
    """conv2d(x, weight, bias, padding=dilation, dilation) + shift[:, :, None, None] + residual, channels-last."""
    _refuse("triton", x)
    return _implementation("triton").dilated_conv2d(x, weight, bias, shift, residual, dilation)


@dilated_conv2d.register_fake
def _(
    x: Tensor, weight: Tensor, bias: Tensor | None, shift: Tensor | None, residual: Tensor | None, dilation: int
) -> Tensor:
    shape = (x.shape[0], weight.shape[0], *x.shape[2:])
    return torch.empty(shape, dtype=x.dtype, device=x.device, memory_format=torch.channels_last)


def _keep_conv(ctx, inputs: tuple, output: Tensor) -> None:
    x, weight, bias, shift, residual, ctx.dilation = inputs
    ctx.save_for_backward(x, weight)
    ctx.dtypes = [None if tensor is None else tensor.dtype for tensor in (bias, shift, residual)]


def _backward_conv(ctx, grad: Tensor) -> tuple[Tensor | None, ...]:
    x, weight = ctx.saved_tensors
    around = [ctx.dilation, ctx.dilation]
    of_x, of_weight, _ = torch.ops.aten.convolution_backward(
        grad, x, weight, None, [1, 1], around, around, False, [0, 0], 1, [*ctx.needs_input_grad[:2], False]
    )
    bias, shift, residual = ctx.dtypes
    return (
        of_x,
        of_weight,
        grad.sum((0, 2, 3)).to(bias) if ctx.needs_input_grad[2] else None,
        grad.sum((2, 3)).to(shift) if ctx.needs_input_grad[3] else None,
        grad.to(residual) if ctx.needs_input_grad[4] else None,
        None,
    )


dilated_conv2d.register_autograd(_backward_conv, setup_context=_keep_conv)


def _refuse(backend: str, x: Tensor) -> None:
    # Called under their own names these operators meet no dispatcher that would have asked.
    reason = _implementation(backend).why_not(x)
    if reason is not None:
        raise ValueError(f"lesionforge: backend {backend!r} cannot serve: {reason}")
