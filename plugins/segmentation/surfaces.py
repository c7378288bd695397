"""Distances between the outlines of two masks.

Two empty masks agree: all distances are 0. To one empty mask there is no distance: all are NaN, so that tables show
the gap and means are taken over the images where the distance exists, beside the number of those where it does not.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

Convention = Literal["surface", "paper"]
Mask = NDArray[np.bool_]


@dataclass(frozen=True)
class SurfaceDistances:
    """Distances of one pair of masks, in units of ``spacing``.

    Attributes:
        hd: Hausdorff distance, the larger of both directed maxima.
        hd95: the larger of both directed 95th percentiles.
        asd: average symmetric distance.
    """

    hd: float
    hd95: float
    asd: float


def surface_distances(
    predicted: Mask, truth: Mask, *, spacing: tuple[float, float] = (1.0, 1.0), convention: Convention = "surface"
) -> SurfaceDistances:
    """Measure how far apart two (H, W) masks are.

    Args:
        spacing: height and width of a pixel.
        convention: ``surface`` measures between outline pixels, those inside with one of four neighbours outside or
            beyond the border; ``asd`` is the mean over the points of both outlines together. ``paper`` follows the
            letter of SkinDualGen (eqs. 12 and 13): distances run from all pixels of one region to the other region, so
            that shared pixels count as 0, and ``asd`` is the mean of both directed means.

    Raises:
        ValueError: the shapes differ or are not two-dimensional.
    """
    if predicted.shape != truth.shape or predicted.ndim != 2:
        raise ValueError(f"masks must be two of (H, W), not {predicted.shape} and {truth.shape}")
    if not predicted.any() or not truth.any():
        missing = float("nan") if predicted.any() or truth.any() else 0.0
        return SurfaceDistances(missing, missing, missing)
    window = ndimage.find_objects((predicted | truth).astype(np.uint8))[0]
    choose = _outline if convention == "surface" else _region
    found, lesion = choose(predicted[window]), choose(truth[window])
    directed = _directed(found, lesion, spacing), _directed(lesion, found, spacing)
    means = [float(distances.mean()) for distances in directed]
    return SurfaceDistances(
        hd=max(float(distances.max()) for distances in directed),
        hd95=max(float(np.percentile(distances, 95)) for distances in directed),
        asd=float(np.concatenate(directed).mean()) if convention == "surface" else sum(means) / 2,
    )


def _region(mask: Mask) -> Mask:
    return mask.astype(bool)


def _outline(mask: Mask) -> Mask:
    inside = mask.astype(bool)
    return inside & np.logical_not(ndimage.binary_erosion(inside))


def _directed(starts: Mask, goals: Mask, spacing: tuple[float, float]) -> NDArray[np.float64]:
    """Return the distance from each pixel of ``starts`` to the nearest of ``goals``."""
    return ndimage.distance_transform_edt(np.logical_not(goals), sampling=spacing)[starts]  # type: ignore[index]
