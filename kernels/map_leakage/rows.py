"""The rows that leakage needs: those of each region, unless all rows or none are in it."""

from __future__ import annotations

from collections.abc import Iterator

from torch import Tensor


def regions(mask: Tensor, two_sided: bool) -> Iterator[tuple[int, int, Tensor, Tensor]]:
    """(case, column, rows, leaks) of each region of `mask` (B, N): its row numbers, and bool (N,) where it leaks to.

    Empty and full regions have no rows, since nothing can leak out of them.
    """
    for case, inside in enumerate(mask.bool()):
        for column, region in enumerate((inside, ~inside)[: 1 + two_sided]):
            rows = region.nonzero().flatten()
            yield case, column, rows[: 0 if len(rows) == len(region) else None], ~region
