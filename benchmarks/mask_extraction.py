"""Binary masks of a batch of soft maps, and the steps of their making that are of use alone."""

from __future__ import annotations

from typing import NamedTuple

from lesionforge.kernels.mask_extraction import benchmark
from lesionforge.kernels.measuring import Case

from .benchmark import Benchmark


class Maps(NamedTuple):
    """Op, number of maps, their edge in pixels, and that of the masks."""

    op: str
    maps: int
    source: int
    size: int


def extraction_case(shape: Maps, device: str) -> Case:
    if shape.op == "extract_masks":
        return benchmark.masks_case(shape.maps, shape.source, shape.size, device)
    make = benchmark.threshold_case if shape.op == "otsu_threshold" else benchmark.cleaning_case
    return make(shape.maps, shape.source, device)


OPS = ("extract_masks", "otsu_threshold", "clean_masks")
BENCHMARK = Benchmark(
    "mask_extraction",
    "masks by Otsu, closing and largest component",
    (
        *(Maps("extract_masks", 32, *sizes) for sizes in ((256, 256), (512, 512), (32, 512))),
        *(Maps(op, 32, 512, 512) for op in OPS[1:]),
    ),
    (Maps("extract_masks", 4, 32, 48), *(Maps(op, 4, 32, 32) for op in OPS[1:])),
    extraction_case,
    ops=OPS,
)
