"""Images at a network's size: decoded once where they fit into memory, and resized."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.dataset import Dataset
from ...core.decoding import Pixels

RESIDENT_BYTES = 2**30


class PixelStore:
    """Decoded pixels of a dataset at one size, kept as bytes on the device if they take at most a gigabyte.

    Args:
        dataset: the cases, decoded at its size.
        device: where pixels are wanted.
        decode: return arrays of uint8 pixels, one row a case, for rows of ``dataset``.
        case_bytes: bytes of a case.
    """

    def __init__(
        self,
        dataset: Dataset,
        device: torch.device,
        decode: Callable[[Sequence[int]], tuple[Pixels, ...]],
        case_bytes: int,
    ) -> None:
        self._decode, self._device = decode, device
        self._resident: tuple[Tensor, ...] | None = None
        if case_bytes * len(dataset) <= RESIDENT_BYTES:
            self._resident = tuple(pixels.to(device) for pixels in self._decoded(range(len(dataset))))

    def take(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        """Return what ``decode`` gives for ``rows``, on the device."""
        if self._resident is None:
            return tuple(pixels.to(self._device, non_blocking=True) for pixels in self._decoded(rows))
        index = torch.tensor(list(rows), device=self._device)
        return tuple(pixels[index] for pixels in self._resident)

    def _decoded(self, rows: Sequence[int]) -> tuple[Tensor, ...]:
        return tuple(torch.from_numpy(pixels) for pixels in self._decode(rows))


def as_images(pixels: Tensor) -> Tensor:
    """Turn (N, H, W, 3) uint8 into (N, 3, H, W) fp32 in [0, 1]."""
    return pixels.permute(0, 3, 1, 2).float().div_(255)


def resized(images: Tensor, size: tuple[int, int]) -> Tensor:
    """Return fp32 ``images`` at (height, width) ``size``, bilinear with antialiasing."""
    images = images.float()
    if tuple(images.shape[-2:]) == size:
        return images
    return F.interpolate(images, size, mode="bilinear", antialias=True, align_corners=False)


def network_input(images: Tensor, size: int) -> Tensor:
    """Return fp32 ``images`` at ``size`` by ``size`` pixels as :func:`resized` makes them, channels last."""
    return resized(images, (size, size)).contiguous(memory_format=torch.channels_last)
