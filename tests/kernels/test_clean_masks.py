from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label
from skimage.morphology import closing as skimage_closing

from lesionforge.kernels import clean_masks
from lesionforge.kernels.mask_extraction import _clean

# Those that serve tensors in main memory.
AVAILABLE = [name for name, backend in _clean.backends.items() if backend.why_not(torch.empty(0)) is None]


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def blobs(count: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, 1, height, width))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 0, 1.7, 1.7)) > 0.05)


def ellipse(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def by_opencv(mask: np.ndarray, closing: int, largest: bool) -> np.ndarray:
    mask = mask.astype(np.uint8)
    if closing:
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, ellipse(closing))
    count, labels, facts, _ = cv2.connectedComponentsWithStats(mask)
    return labels == 1 + facts[1:, cv2.CC_STAT_AREA].argmax() if largest and count > 1 else mask > 0


def by_scikit_image(mask: np.ndarray, closing: int, largest: bool) -> np.ndarray:
    if closing:
        mask = skimage_closing(mask, ellipse(closing).astype(bool), mode="ignore")
    labels = label(mask, connectivity=2)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax() if largest and labels.any() else mask


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("height", "width", "closing"), [(64, 64, 5), (70, 33, 0), (31, 130, 15), (97, 65, 63)])
def test_masks_are_those_of_opencv_and_scikit_image(
    height: int, width: int, closing: int, largest: bool, backend: str
) -> None:
    masks = blobs(6, height, width, seed=height)
    made = clean_masks(masks, closing=closing, largest_component=largest, backend=backend)
    assert made.dtype == torch.bool and made.shape == masks.shape
    for mask, before in zip(made[:, 0].numpy(), masks[:, 0].numpy(), strict=True):
        np.testing.assert_array_equal(mask, by_opencv(before, closing, largest))
        np.testing.assert_array_equal(mask, by_scikit_image(before, closing, largest))


@settings(deadline=None, max_examples=40)
@given(
    height=st.integers(1, 70),
    width=st.integers(1, 70),
    closing=st.integers(0, 20).map(lambda radius: 2 * radius - 1 if radius else 0),
    largest=st.booleans(),
    seed=st.integers(0, 999),
)
def test_backends_agree_and_closing_adds_and_is_done_once(
    height: int, width: int, closing: int, largest: bool, seed: int
) -> None:
    masks = blobs(2, height, width, seed=seed)
    expected = clean_masks(masks, closing=closing, largest_component=largest, backend="reference")
    for backend in AVAILABLE:
        made = clean_masks(masks, closing=closing, largest_component=largest, backend=backend)
        assert torch.equal(made, expected)
    if not largest:
        assert torch.equal(clean_masks(expected, closing=closing, largest_component=False), expected)
        assert bool((expected >= masks).all())


def test_empty_and_full_masks_stay_what_they_are(backend: str) -> None:
    masks = torch.stack([torch.zeros(40, 51), torch.ones(40, 51)])
    assert torch.equal(clean_masks(masks, backend=backend), masks)
    assert clean_masks(masks[:0], backend=backend).shape == (0, 40, 51)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.float32, torch.bfloat16])
def test_shape_and_dtype_are_kept_and_what_is_not_0_is_inside(dtype: torch.dtype, backend: str) -> None:
    masks = blobs(3, 30, 41)
    expected = clean_masks(masks, backend=backend)
    scaled = masks if dtype == torch.bool else masks.to(dtype) * 7
    for before in (scaled, scaled[:, 0], scaled.transpose(2, 3).contiguous().transpose(2, 3)):
        made = clean_masks(before, backend=backend)
        assert made.dtype == dtype and made.shape == before.shape
        assert torch.equal(made.reshape(expected.shape), expected.to(dtype))


def test_bad_input_is_told() -> None:
    with pytest.raises(TypeError, match=r"masks must be bool, uint8 or floating point, not torch\.int64"):
        clean_masks(torch.zeros(1, 4, 4, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(N, 1, H, W\) or \(N, H, W\), not \(4, 4\)"):
        clean_masks(torch.zeros(4, 4))
    with pytest.raises(ValueError, match="closing must be 0 or an odd number of pixels up to 8192, not 2"):
        clean_masks(torch.zeros(1, 4, 4), closing=2)
