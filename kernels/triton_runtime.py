"""Triton: when its kernels can serve, and how an op's kernels are loaded without asking for Triton before they run."""

from __future__ import annotations

import os
from collections.abc import Callable
from functools import cache
from importlib import import_module
from typing import Any

import torch
from torch import Tensor

DTYPES = (torch.float32, torch.float16, torch.bfloat16)


def kernels_of(module: str) -> Callable[[], Any]:
    """A function that imports `<module>_kernels`, where the kernels of `module` lie, and with them Triton."""

    @cache
    def load() -> Any:
        return import_module(f"{module}_kernels")

    return load


def why_not(*tensors: Tensor) -> str | None:
    """None if Triton's kernels can serve `tensors`, else the reason. Triton is imported only where the tensors fit."""
    interpreted = _interpreted()
    if not (interpreted or torch.cuda.is_available()):
        return "there is no CUDA device, and TRITON_INTERPRET=1 is not set"
    for tensor in tensors:
        if tensor.device.type != "cuda" and not (interpreted and tensor.device.type == "cpu"):
            return f"it works on CUDA tensors, these are on {tensor.device}"
        if tensor.is_floating_point() and tensor.dtype not in DTYPES:
            return f"it computes in float32, float16 and bfloat16, not {tensor.dtype}"
        if interpreted and tensor.dtype == torch.bfloat16:
            return "Triton's interpreter multiplies bfloat16 wrongly"
    reason = _why_missing()
    if reason is not None:
        return reason
    if not interpreted and torch.cuda.get_device_capability(tensors[0].device if tensors else None) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or newer"
    return None


def _interpreted() -> bool:
    """Whether the variable of Triton's own name asks for its interpreter."""
    return os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "on", "y", "yes")


@cache
def _why_missing() -> str | None:
    try:
        import_module("triton")
    except Exception as error:  # a broken installation may raise anything
        if isinstance(error, ModuleNotFoundError) and error.name == "triton":
            return "the package triton is not installed"
        return f"the package triton does not load: {type(error).__name__}: {error}"
    return None
