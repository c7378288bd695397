"""The residual block's unit: GroupNorm, SiLU, a 3x3 convolution of any dilation, a shift per channel, a residual.

    norm_act_conv2d(x, ...) = conv2d(silu(group_norm(x)), weight, bias, padding=dilation, dilation)
                              + shift[:, :, None, None] + residual

Plain torch reads and writes the maps four times beside the convolution. The backend `cpu` leaves the convolution to
oneDNN, which writes the bias as it stores its result, and does the rest in one pass before it and one after it.
`triton` does the same on a GPU around cuDNN, `triton_conv` also computes the convolution, as an implicit GEMM on
channels-last maps with the addends in its epilogue. Neither has been measured on a GPU, so both serve by name only.

Sources: Wu and He, "Group normalization", ECCV 2018 (group_norm); Hendrycks and Gimpel, arXiv:1606.08415 (SiLU).
"""

from __future__ import annotations

import operator
from typing import Any

import torch
from torch import Tensor

from .. import triton_runtime
from ..dispatch import Backend, Op, unmeasured
from . import backends, cpu, reference

__all__ = ["OPS", "norm_act_conv2d"]


def _probe(device: str) -> tuple[Any, ...]:
    rng = torch.Generator().manual_seed(0)
    shapes = ((2, 16, 24, 24), (16,), (16,), (24, 16, 3, 3), (24,), (2, 24), (2, 24, 24, 24))
    x, gamma, beta, weight, bias, shift, residual = (torch.randn(shape, generator=rng).to(device) for shape in shapes)
    x = x.contiguous(memory_format=torch.channels_last)
    return x, gamma, beta, weight / 12, bias, 4, 1e-5, 2, shift, residual


_op = Op(
    "norm_act_conv2d",
    Backend("cpu", backends.on_cpu, cpu.why_not, backends.reservation),
    Backend("triton", backends.with_triton, triton_runtime.why_not, unmeasured),
    Backend("triton_conv", backends.with_triton_conv, triton_runtime.why_not, unmeasured),
    Backend("reference", reference.norm_act_conv2d, reference.why_not),
    probe=_probe,
)
OPS = (_op,)


def norm_act_conv2d(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    *,
    groups: int,
    eps: float = 1e-5,
    dilation: int = 1,
    shift: Tensor | None = None,
    residual: Tensor | None = None,
    backend: str = "auto",
) -> Tensor:
    """conv2d(silu(group_norm(x)), weight, bias, padding=dilation, dilation) + shift[:, :, None, None] + residual.

    x (B,C,H,W) in any memory format, gamma and beta (C,), weight (D,C,3,3), bias (D,) or None, shift (B,D) or None,
    residual (B,D,H,W) or None -> (B,D,H,W), channels-last if x is. B may be 0.

    Dtypes: all alike, floating; gamma and beta may be float32 beside narrower maps. Under autocast they may differ:
    the normalisation keeps x's dtype, the convolution takes autocast's, shift and residual are cast to its result's.
    Statistics are at least float32 on every backend.

    Gradients: all backends give them. Those of `cpu` and the Triton ones normalise again in the backward pass, and
    cannot be differentiated twice. Automatic choice takes plain torch where a gradient is wanted, since its backward
    reads what its forward kept; and under torch.compile, which fuses plain torch itself.

    Raises TypeError for other dtypes and for groups or dilation that are no integers, ValueError for other shapes,
    devices or settings, BackendUnavailable if `backend` cannot serve.
    """
    _check_shapes(x, weight, {"gamma": gamma, "beta": beta, "bias": bias, "shift": shift, "residual": residual})
    groups, dilation = _whole("groups", groups), _whole("dilation", dilation)
    _check_settings(x.shape[1], groups, eps, dilation)
    tensors = [t for t in (x, gamma, beta, weight, bias, shift, residual) if t is not None]
    _check_kinds(x, gamma, beta, tensors)
    if torch.compiler.is_compiling():
        # Under its own name a backend is asked at run time, by the operators themselves.
        run = _op.backends["reference" if backend == "auto" else backend].run
    else:
        run = _op.choose(backend, *tensors).run
    return run(x, gamma, beta, weight, bias, groups, eps, dilation, shift, residual)


def _check_shapes(x: Tensor, weight: Tensor, others: dict[str, Tensor | None]) -> None:
    if x.ndim != 4 or 0 in x.shape[1:]:
        raise ValueError(f"x must have shape (B, C, H, W) with C, H and W above 0, not {tuple(x.shape)}")
    cases, channels, height, width = x.shape
    if weight.ndim != 4 or weight.shape[1:] != (channels, 3, 3) or not weight.shape[0]:
        raise ValueError(f"weight must have shape (D, {channels}, 3, 3), not {tuple(weight.shape)}")
    outputs = weight.shape[0]
    expected = {
        "gamma": (channels,),
        "beta": (channels,),
        "bias": (outputs,),
        "shift": (cases, outputs),
        "residual": (cases, outputs, height, width),
    }
    for name, tensor in others.items():
        if tensor is not None and tuple(tensor.shape) != expected[name]:
            raise ValueError(f"{name} must have shape {expected[name]}, not {tuple(tensor.shape)}")


def _whole(name: str, number: int) -> int:
    try:
        return operator.index(number)
    except TypeError:
        raise TypeError(f"{name} must be an integer, not {number!r}") from None


def _check_settings(channels: int, groups: int, eps: float, dilation: int) -> None:
    if groups < 1 or channels % groups:
        raise ValueError(f"groups must divide the {channels} channels, not be {groups}")
    if not 0.0 <= eps < float("inf"):
        raise ValueError(f"eps must be at least 0 and finite, not {eps}")
    if dilation < 1:
        raise ValueError(f"dilation must be at least 1, not {dilation}")


def _check_kinds(x: Tensor, gamma: Tensor, beta: Tensor, tensors: list[Tensor]) -> None:
    for tensor in tensors:
        if tensor.device != x.device:
            raise ValueError(f"all tensors must be on one device, not on {x.device} and {tensor.device}")
        if not tensor.dtype.is_floating_point:
            raise TypeError(f"all tensors must be floating point, not {tensor.dtype}")
    if gamma.dtype != beta.dtype or gamma.dtype not in (x.dtype, torch.float32):
        raise TypeError(f"gamma and beta must be {x.dtype} like x or float32, not {gamma.dtype} and {beta.dtype}")
    if torch.is_autocast_enabled(x.device.type):
        return
    for tensor in tensors[3:]:
        if tensor.dtype != x.dtype:
            raise TypeError(f"outside autocast all maps must have x's dtype {x.dtype}, one has {tensor.dtype}")
