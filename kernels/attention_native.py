"""The native attention kernels (kernels/csrc/attention*.cpp): when they can serve, and on which instructions."""

from __future__ import annotations

import torch
from torch import Tensor

from . import native


def why_not(*tensors: Tensor) -> str | None:
    """None if the C++ kernels can serve `tensors`, else the reason."""
    for tensor in tensors:
        if tensor.dtype == torch.float64:
            return "it computes in float32, these are float64"
    reason = native.why_not(*tensors)
    if reason is None and not hasattr(native.module(), "mean_attention"):
        return "the native module was built by a compiler without vector extensions (neither GCC nor Clang)"
    return reason


def instruction_sets() -> list[str]:
    """The sets that this build and CPU have, fastest first."""
    return native.module().attention_instruction_sets() if why_not() is None else []


def dense(tensor: Tensor, instructions: str) -> Tensor:
    """`tensor` as the kernels read it: contiguous, bfloat16 kept where they have tiles for it (AMX), else float32."""
    keep = tensor.dtype == torch.bfloat16 and (instructions or instruction_sets()[0]) == "amx"
    return (tensor if keep else tensor.to(torch.float32)).contiguous()
