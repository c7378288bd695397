"""The residual block's unit against plain torch: as released code runs it, and at its best."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ..measuring import REFERENCE_METHOD, Case, Contender, backends_of
from . import OPS, norm_act_conv2d

GROUPS = 16
# cuDNN computes float32 in TF32 unless told otherwise.
TOLERANCES = {("cpu", torch.float32): 2e-5, ("cuda", torch.float32): 3e-3}
NARROW = 2e-2


def case(cases: int, channels: int, edge: int, dilation: int, dtype: torch.dtype, device: str) -> Case:
    """Maps (cases, channels, edge, edge) to maps of the same size, with shift and residual, without gradients."""
    rng = torch.Generator().manual_seed(0)
    sizes = ((cases, channels, edge, edge), (channels,), (channels,), (channels, channels, 3, 3), (channels,))
    sizes = (*sizes, (cases, channels), (cases, channels, edge, edge))
    # Rounded to the narrow dtype for all, so that only the arithmetic differs.
    drawn = [torch.randn(size, generator=rng).to(device, dtype) for size in sizes]
    drawn[3] /= 3 * channels**0.5
    plain = [tensor.float() for tensor in drawn]
    last = [t.contiguous(memory_format=torch.channels_last) if t.ndim == 4 else t for t in drawn]

    @torch.no_grad()
    def by_op(backend: str) -> Tensor:
        x, gamma, beta, weight, bias, shift, residual = last
        settings = {"groups": GROUPS, "dilation": dilation, "backend": backend}
        return norm_act_conv2d(x, gamma, beta, weight, bias, **settings, shift=shift, residual=residual)

    @torch.no_grad()
    def as_released() -> Tensor:
        return by_torch(plain, dilation)

    tolerance = TOLERANCES.get((device, dtype), NARROW)
    contenders = [
        Contender("float32 NCHW", as_released, "eager, as released code", tolerance, REFERENCE_METHOD),
    ]
    if device == "cuda":
        # A fresh start for each case: after a few shapes torch would compile for all of them, or not at all.
        torch.compiler.reset()
        compiled = torch.no_grad()(torch.compile(by_torch, fullgraph=True, dynamic=False))
        contenders.append(
            Contender("torch.compile", lambda: compiled(last, dilation), "channels-last, compiled", tolerance)
        )
    with torch.no_grad():
        contenders += backends_of(OPS[0], by_op, *last, tolerance=tolerance)
    shape = f"{cases}x{channels}x{edge}x{edge}, dilation {dilation}, {name_of(dtype)}"
    return Case(OPS[0].name, shape, tuple(contenders), as_released, device)


def by_torch(tensors: Sequence[Tensor], dilation: int) -> Tensor:
    """The unit as a network of torch.nn computes it."""
    x, gamma, beta, weight, bias, shift, residual = tensors
    normal = F.silu(F.group_norm(x, GROUPS, gamma, beta))
    return F.conv2d(normal, weight, bias, padding=dilation, dilation=dilation) + shift[:, :, None, None] + residual


def name_of(dtype: torch.dtype) -> str:
    return str(dtype).removeprefix("torch.")


def diagnostic_cases(device: str) -> list[Case]:
    """A small case of the op."""
    return [case(4, 128, 64, 2, torch.bfloat16, device)]
