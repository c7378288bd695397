"""Shapes of lesion masks, synthetic against real."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

import numpy as np

from ..dataset import Dataset
from ..decoding import Pixels
from ..run import Case
from .charts import Chart, Layer, histogram
from .statistics import Numbers, chance_gap, finite, kolmogorov_smirnov, quartiles, spread
from .wording import MISSING, fixed

REAL_MEASURED = 400

MEASURES = {
    "area": ("area", "share of the image inside the lesion"),
    "center_x": ("centre, across", "centroid from the left (0) to the right edge (1)"),
    "center_y": ("centre, down", "centroid from the top (0) to the bottom edge (1)"),
    "eccentricity": ("eccentricity", "of the ellipse with the same second moments: 0 round, towards 1 elongated"),
    "border_touch": ("border touch", "share of the outermost pixels of the image inside the lesion"),
    "compactness": ("compactness", "4π area / perimeter², about 1 for a disc, less for a ragged outline"),
    "irregularity": ("irregularity", "share of the convex hull outside the lesion: 0 for a convex outline"),
}


@dataclass(frozen=True)
class ShapeRow:
    """One measure of both sets.

    Attributes:
        gap: Kolmogorov-Smirnov statistic, None without real masks.
        chance: what ``gap`` exceeds once in twenty times where both sets are alike.
    """

    name: str
    meaning: str
    synthetic: Numbers
    real: Numbers
    gap: float | None
    chance: float | None
    chart: Chart

    @property
    def quartiles(self) -> tuple[str, str]:
        """Median and quartiles of the synthetic and the real masks, in words."""
        return _in_words(self.synthetic), _in_words(self.real)


@dataclass(frozen=True)
class Shapes:
    """All measures, and how many masks they rest on; an empty mask counts in the area alone."""

    rows: list[ShapeRow]
    synthetic: int
    real: int
    empty: int
    size: tuple[int, int]


def compare_shapes(accepted: Iterable[Case], real: Dataset | None, reference: str) -> Shapes | None:
    """Measure the masks of ``accepted`` and of an even sample of the real ones; None where the chain makes no masks.

    Real masks are resized to the synthetic ones' size first, since perimeters depend on resolution. ``reference`` is
    what charts call them.
    """
    synthetic, size = [], (0, 0)
    for case in accepted:
        mask = case.mask
        if mask is not None:
            synthetic.append(measure(mask))
            size = mask.shape[1], mask.shape[0]
    if not synthetic:
        return None
    theirs = [measure(mask) for mask in _real_masks(real, size[0] if size[0] == size[1] else None)]
    empty = sum(shape["area"] == 0 for shape in synthetic)
    rows = [_row(key, synthetic, theirs, reference) for key in MEASURES]
    return Shapes([row for row in rows if row is not None], len(synthetic), len(theirs), empty, size)


def _in_words(values: Numbers) -> str:
    found = quartiles(values)
    return f"{fixed(found[1])} ({fixed(found[0])}–{fixed(found[2])})" if found else MISSING


def _real_masks(real: Dataset | None, size: int | None) -> Iterable[Pixels]:
    if real is None:
        return
    masked = real.where(lambda record: record.mask is not None).resized(size)
    for row in spread(len(masked), REAL_MEASURED):
        yield masked.mask(row)


def _row(key: str, synthetic: list[dict[str, float]], real: list[dict[str, float]], reference: str) -> ShapeRow | None:
    ours, theirs = (finite([shape[key] for shape in shapes]) for shapes in (synthetic, real))
    if not len(ours):
        return None
    name, meaning = MEASURES[key]
    outline = Layer(reference, "reference", theirs) if len(theirs) else None
    gap = kolmogorov_smirnov(ours, theirs) if len(theirs) else None
    chance = chance_gap(len(ours), len(theirs)) if len(theirs) else None
    chart = histogram(name, [Layer("synthetic", "kept", ours)], outline)
    return ShapeRow(name, meaning, ours, theirs, gap, chance, chart)


def measure(mask: Pixels) -> dict[str, float]:
    """Return the measures of an (H, W) mask of 0 and 1 by the keys of ``MEASURES``; NaN where an empty mask has none.

    Area, centre and border touch are of the whole mask. Outlines are those of its largest 8-connected component; the
    perimeter is Crofton's estimate from four directions.
    """
    height, width = mask.shape
    frame = np.ones(mask.shape, bool)
    frame[1:-1, 1:-1] = False
    measures = dict.fromkeys(MEASURES, math.nan) | {"area": float(mask.mean())}
    if mask.any():
        rows, columns = np.nonzero(mask)
        measures |= {
            "center_x": float(columns.mean() + 0.5) / width,
            "center_y": float(rows.mean() + 0.5) / height,
            "border_touch": float(mask[frame].mean()),
            **_outline(mask),
        }
    return measures


def _outline(mask: Pixels) -> dict[str, float]:
    from skimage.measure import label, regionprops

    largest = max(regionprops(label(mask, connectivity=2)), key=lambda region: region.area)
    if largest.area < 3:
        return {}
    perimeter = largest.perimeter_crofton
    return {
        "eccentricity": float(largest.eccentricity),
        "compactness": 4 * math.pi * float(largest.area) / perimeter**2 if perimeter > 0 else math.nan,
        "irregularity": 1 - float(largest.solidity),
    }
