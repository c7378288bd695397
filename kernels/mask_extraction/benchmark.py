"""Mask extraction against loops over scikit-image and OpenCV, a map at a time, and against batched torch."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib.util import find_spec
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy.ndimage import gaussian_filter
from torch import Tensor

from ..measuring import REFERENCE_METHOD, Case, Contender, backends_of
from . import OPS, clean_masks, extract_masks, otsu_threshold
from .ellipse import half_widths

CLOSING = 5
# Libraries round the levels of a map elsewhere: single pixels on the outline change sides.
LIBRARY_TOLERANCE = 2e-3


def masks_case(maps: int, source: int, size: int, device: str) -> Case:
    """Masks of `maps` smooth maps of `source` pixels a side, enlarged to `size`, closed, largest component."""
    given = smooth_maps(maps, source).to(device)

    def by_op(backend: str) -> Tensor:
        return extract_masks(given, size, closing=CLOSING, backend=backend)[:, 0]

    loops = _loops(
        given, partial(mask_by_scikit_image, size=size), partial(mask_by_opencv, size=size), LIBRARY_TOLERANCE
    )
    return _case("extract_masks", f"{maps} maps of {source}, masks of {size} pixels", given, by_op, loops)


def threshold_case(maps: int, source: int, device: str) -> Case:
    """Otsu's threshold of `maps` maps of bytes, `source` pixels a side."""
    given = (smooth_maps(maps, source) * 255 + 0.5).to(torch.uint8).to(device)

    def by_op(backend: str) -> Tensor:
        return otsu_threshold(given, backend=backend)

    loops = _loops(given, threshold_by_scikit_image, threshold_by_opencv, 0.0)
    return _case("otsu_threshold", f"{maps} maps of {source} pixels, bytes", given, by_op, loops)


def cleaning_case(maps: int, source: int, device: str) -> Case:
    """Masks of `source` pixels a side closed, and reduced to their largest component."""
    given = (smooth_maps(maps, source) > 0.6).to(torch.uint8).to(device)

    def by_op(backend: str) -> Tensor:
        return clean_masks(given, closing=CLOSING, backend=backend)

    loops = _loops(given, clean_by_scikit_image, clean_by_opencv, 0.0)
    return _case("clean_masks", f"{maps} masks of {source} pixels", given, by_op, loops)


def diagnostic_cases(device: str) -> list[Case]:
    """Small cases of every op of this folder."""
    return [threshold_case(16, 256, device), masks_case(16, 256, 256, device), cleaning_case(16, 256, device)]


def smooth_maps(maps: int, source: int) -> Tensor:
    """(maps, source, source) float32 in [0, 1]: noise, blurred by a twentieth of the edge."""
    noise = np.random.default_rng(0).standard_normal((maps, source, source), dtype=np.float32)
    blurred = gaussian_filter(noise, (0, source / 20, source / 20))
    low, high = blurred.min((1, 2), keepdims=True), blurred.max((1, 2), keepdims=True)
    return torch.from_numpy((blurred - low) / (high - low))


def share_that_differs(made: Tensor, truth: Tensor) -> float:
    """Share of the values that are not equal."""
    if made.shape != truth.shape:
        raise ValueError(f"its result is {tuple(made.shape)}, not {tuple(truth.shape)}")
    return float((made != truth.to(made.device)).double().mean())


def mask_by_scikit_image(values: NDArray[Any], size: int) -> NDArray[Any]:
    from skimage import filters, transform

    if len(values) != size:
        values = np.asarray(transform.resize(values, (size, size), order=1, mode="edge", anti_aliasing=False))
    levels = (values * 255 + 0.5).astype(np.uint8)
    return clean_by_scikit_image(levels > filters.threshold_otsu(levels))


def clean_by_scikit_image(mask: NDArray[Any]) -> NDArray[Any]:
    from skimage import measure, morphology

    radius = CLOSING // 2
    element = np.abs(np.arange(-radius, radius + 1)) <= np.array(half_widths(CLOSING))[:, None]
    closed = morphology.closing(mask, element, mode="ignore")
    labels = np.asarray(measure.label(closed, connectivity=2))
    return np.equal(labels, 1 + np.bincount(labels.ravel())[1:].argmax())


def mask_by_opencv(values: NDArray[Any], size: int) -> NDArray[Any]:
    import cv2

    values = cv2.normalize(values, None, 0, 255, cv2.NORM_MINMAX)  # type: ignore[call-overload]
    if len(values) != size:
        values = cv2.resize(values, (size, size), interpolation=cv2.INTER_LINEAR)
    return clean_by_opencv(cv2.threshold(cv2.convertScaleAbs(values), 0, 1, cv2.THRESH_OTSU)[1])


def clean_by_opencv(mask: NDArray[Any]) -> NDArray[Any]:
    import cv2

    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (CLOSING, CLOSING)))
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask)
    return cv2.compare(labels, int(1 + facts[1:, cv2.CC_STAT_AREA].argmax()), cv2.CMP_EQ) > 0  # type: ignore


def threshold_by_scikit_image(levels: NDArray[Any]) -> int:
    from skimage import filters

    return int(filters.threshold_otsu(levels))


def threshold_by_opencv(levels: NDArray[Any]) -> int:
    import cv2

    return int(cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)[0])


def _loops(
    given: Tensor, by_scikit_image: Callable[..., Any], by_opencv: Callable[..., Any], tolerance: float
) -> list[Contender]:
    """Contenders that fetch the maps to main memory, if need be, and take them one by one."""

    def loop(one: Callable[..., Any]) -> Tensor:
        return torch.from_numpy(np.stack([one(values) for values in given.cpu().numpy()])).to(given.device)

    def loop_of_opencv() -> Tensor:
        import cv2

        cv2.setNumThreads(torch.get_num_threads())
        return loop(by_opencv)

    contenders = [
        Contender("scikit-image", partial(loop, by_scikit_image), "map by map", tolerance, REFERENCE_METHOD)
    ]
    if find_spec("cv2"):
        contenders.append(Contender("OpenCV", loop_of_opencv, "map by map", tolerance))
    return contenders


def _case(op: str, shape: str, given: Tensor, by_op: Callable[[str], Tensor], loops: list[Contender]) -> Case:
    (known,) = (known for known in OPS if known.name == op)
    contenders = (*loops, *backends_of(known, by_op, given, tolerance=0.0))
    return Case(op, shape, contenders, partial(by_op, "reference"), given.device.type, share_that_differs)
