"""Shape statistics of a batch of lesion masks."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

if TYPE_CHECKING:
    from torch import Tensor

# Neighbours within an image only: never across the first axis, which counts the cases.
EIGHT_CONNECTED = np.zeros((3, 3, 3), bool)
EIGHT_CONNECTED[1] = True
FOUR_CONNECTED = np.zeros((3, 3, 3), bool)
FOUR_CONNECTED[1] = ndimage.generate_binary_structure(2, 1)


def mask_scores(masks: Tensor, *, min_component_area: float = 0.0) -> dict[str, Tensor]:
    """Return four (N,) float64 scores of (N, 1, H, W) masks, in which values above 0.5 are lesion.

    ``mask_area``: share of the image that is lesion. ``mask_components``: number of 8-connected components of at
    least ``min_component_area`` (share of the image). ``mask_border``: share of the outermost frame of pixels that is
    lesion. ``mask_holes``: share of the filled lesion that is background not 4-connected to the frame.
    """
    lesion = masks[:, 0].gt(0.5).cpu().numpy()
    frame = _frame(*lesion.shape[1:])
    pixels = lesion[0].size if len(lesion) else 1
    area = lesion.sum(axis=(1, 2))
    holes = _hole_pixels(lesion, frame)
    columns = {
        "mask_area": area / pixels,
        "mask_components": _components(lesion, min_component_area * pixels),
        "mask_border": lesion[:, frame].mean(axis=1),
        "mask_holes": holes / np.maximum(area + holes, 1),
    }
    return {name: torch.as_tensor(column, dtype=torch.float64) for name, column in columns.items()}


def _frame(height: int, width: int) -> NDArray[np.bool_]:
    frame = np.zeros((height, width), bool)
    frame[[0, -1]] = frame[:, [0, -1]] = True
    return frame


def _label(pixels: NDArray[np.bool_], structure: NDArray[np.bool_]) -> tuple[NDArray[Any], int]:
    labels, count = ndimage.label(pixels, structure)  # pyright: ignore[reportGeneralTypeIssues]
    return labels, count


def _components(lesion: NDArray[np.bool_], min_pixels: float) -> NDArray[np.int64]:
    """Return the number of components of each case that have at least ``min_pixels``."""
    labels, count = _label(lesion, EIGHT_CONNECTED)
    owner = np.zeros(count + 1, np.int64)
    owner[labels] = np.arange(len(lesion))[:, None, None]
    large = np.bincount(labels.ravel(), minlength=count + 1) >= min_pixels
    large[0] = False
    return np.bincount(owner[large], minlength=len(lesion))


def _hole_pixels(lesion: NDArray[np.bool_], frame: NDArray[np.bool_]) -> NDArray[np.int64]:
    """Return how many background pixels of each case the lesion encloses."""
    labels, count = _label(~lesion, FOUR_CONNECTED)
    enclosed = np.ones(count + 1, bool)
    enclosed[0] = False
    enclosed[labels[:, frame]] = False
    return enclosed[labels].sum(axis=(1, 2))
