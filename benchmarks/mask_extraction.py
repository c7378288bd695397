"""Binary masks of a batch of soft maps, and Otsu's threshold alone."""

from __future__ import annotations

from typing import NamedTuple

from lesionforge.kernels.mask_extraction import benchmark
from lesionforge.kernels.measuring import Case

from .benchmark import Benchmark


class Maps(NamedTuple):
    """Number and edge of the maps, edge of the masks in pixels; 0: only the threshold."""

    maps: int
    source: int
    size: int


def extraction_case(shape: Maps, device: str) -> Case:
    if shape.size:
        return benchmark.masks_case(*shape, device)
    return benchmark.threshold_case(shape.maps, shape.source, device)


BENCHMARK = Benchmark(
    "mask_extraction",
    "masks by Otsu, closing and largest component",
    (Maps(32, 256, 256), Maps(32, 512, 512), Maps(32, 32, 512), Maps(32, 256, 0)),
    (Maps(4, 32, 48), Maps(4, 32, 0)),
    extraction_case,
    ops=("extract_masks", "otsu_threshold"),
)
