"""Triton: when its kernels can serve, and how an op's kernels are loaded without asking for Triton before they run."""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from importlib import import_module
from importlib.util import find_spec
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
    """None if Triton's kernels can serve `tensors`, else the reason."""
    if find_spec("triton") is None:
        return "the package triton is not installed"
    interpreted = import_module("triton").knobs.runtime.interpret
    if not (interpreted or torch.cuda.is_available()):
        return "there is no CUDA device, and TRITON_INTERPRET=1 is not set"
    for tensor in tensors:
        if tensor.device.type != "cuda" and not (interpreted and tensor.device.type == "cpu"):
            return f"it works on CUDA tensors, these are on {tensor.device}"
        if tensor.is_floating_point() and tensor.dtype not in DTYPES:
            return f"it computes in float32, float16 and bfloat16, not {tensor.dtype}"
        if interpreted and tensor.dtype == torch.bfloat16:
            return "Triton's interpreter multiplies bfloat16 wrongly"
    if not interpreted and torch.cuda.get_device_capability(tensors[0].device if tensors else None) < (8, 0):
        return "it needs a GPU of compute capability 8.0 or newer"
    return None
