"""Noise that belongs to each case, for the start and for every stochastic step of a reverse process."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...core.context import Context
from ...kernels import seeded_normal, stream_of


class CaseNoise:
    """Standard normals of N cases: draw 0 is the start, draw k + 1 belongs to the k-th reverse step."""

    def __init__(
        self, seeds: Sequence[int], shape: tuple[int, int, int], context: Context, *, stream: str | None = None
    ) -> None:
        """Take one 64-bit seed a case and the shape (C, H, W); ``stream`` is the stage's own unless named."""
        self._keys = torch.tensor(list(seeds), dtype=torch.uint64).view(torch.int64).to(context.device)
        self._shape, self._device = shape, context.device
        self._stream = stream_of(context.name if stream is None else stream)

    def __call__(self, draw: int) -> Tensor:
        """Return (N, C, H, W) fp32, channels-last."""
        numbers = seeded_normal(self._keys, self._shape, step=draw, stream=self._stream, device=self._device)
        return numbers.contiguous(memory_format=torch.channels_last)
