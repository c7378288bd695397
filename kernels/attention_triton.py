"""What the Triton attention kernels share: when they can serve, and the size of their tiles."""

from __future__ import annotations

import math
from typing import NamedTuple

from torch import Tensor

from . import triton_runtime

WIDEST_HEAD = 256
LOG2_E = 1 / math.log(2)  # on the scale: the kernels' exponentials are powers of two


class Tile(NamedTuple):
    """Queries and keys that a program works on at once, and the warps that share the work."""

    queries: int
    keys: int
    warps: int


def why_not(*tensors: Tensor) -> str | None:
    """None if the Triton kernels can serve `tensors`, the first of them the query, else the reason."""
    if tensors and tensors[0].shape[-1] > WIDEST_HEAD:
        return f"it takes heads of up to {WIDEST_HEAD} channels, these have {tensors[0].shape[-1]}"
    return triton_runtime.why_not(*tensors)


def padded(width: int) -> int:
    """The power of two that a matrix product takes for `width`, 16 at least."""
    return max(16, 1 << (width - 1).bit_length())


def launch_options(query: Tensor, tiles: dict[tuple[int, int], Tile]) -> dict[str, int]:
    """What all kernels take by name, for heads as wide as the query's.

    `tiles` has keys (bytes of a number, channels of a head at most), in order.
    """
    depth = query.shape[-1]
    tile = next(tile for (size, most), tile in tiles.items() if size == query.element_size() and depth <= most)
    return {
        "DEPTH": depth,
        "PADDED_DEPTH": padded(depth),
        "BLOCK_M": tile.queries,
        "BLOCK_N": tile.keys,
        "num_warps": tile.warps,
    }
