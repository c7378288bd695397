"""The same work with lesionforge's kernels switched off, for benchmarks from end to end."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar
from unittest.mock import patch

from torch import Tensor

from lesionforge.kernels.dispatch import Backend, Op

R = TypeVar("R")


def without_kernels(work: Callable[[], R]) -> Callable[[], R]:
    """`work` with every op on its best backend in plain torch, whatever it asks for."""

    def run() -> R:
        with patch.object(Op, "choose", plain_torch):
            return work()

    return run


def plain_torch(op: Op[..., Any], wanted: str, *tensors: Tensor) -> Backend[..., Any]:
    return op.backends.get("torch", op.backends["reference"])
