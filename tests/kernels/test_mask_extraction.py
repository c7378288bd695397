from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.filters import gaussian, threshold_otsu
from skimage.measure import label
from skimage.morphology import closing as skimage_closing

from lesionforge.kernels import extract_masks
from lesionforge.kernels.mask_extraction import _extract_masks, _gaussian, _masks, _otsu_threshold, reference
from lesionforge.kernels.mask_extraction.ellipse import half_widths

# Those that serve tensors in main memory.
AVAILABLE = [name for name, backend in _masks.backends.items() if backend.why_not(torch.empty(0)) is None]
needs_native = pytest.mark.skipif("cpu" not in AVAILABLE, reason="the native module is not built")


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def smooth_maps(count: int, height: int, width: int, *, blur: float = 1.7, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, height, width))
    maps = ndimage.gaussian_filter(noise, (0, blur, blur))
    return torch.from_numpy(((maps - maps.min()) / np.ptp(maps)).astype(np.float32))[:, None]


def level_maps(count: int, size: int, *, blur: float = 1.7, seed: int = 0) -> torch.Tensor:
    return reference.extract_levels(smooth_maps(count, size, size, blur=blur, seed=seed), size, [])


def ellipse(diameter: int) -> np.ndarray:
    return cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (diameter, diameter))


def by_opencv(levels: np.ndarray, closing: int, largest: bool) -> np.ndarray:
    _, mask = cv2.threshold(levels, 0, 1, cv2.THRESH_OTSU)
    if closing:
        mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, ellipse(closing))
    count, labels, facts, _ = cv2.connectedComponentsWithStats(mask)
    if largest and count > 1:
        areas = facts[1:, cv2.CC_STAT_AREA]
        assert (areas == areas.max()).sum() == 1, "OpenCV's choice among equal components is its own"
        mask = labels == 1 + areas.argmax()
    return mask.astype(np.float32)


def by_scikit_image(levels: np.ndarray, closing: int, largest: bool) -> np.ndarray:
    mask = levels > threshold_otsu(levels)
    if closing:
        mask = skimage_closing(mask, ellipse(closing).astype(bool), mode="ignore")
    if largest:
        labels = label(mask, connectivity=2)
        areas = np.bincount(labels.ravel())
        mask = labels == 1 + areas[1:].argmax()
    return mask.astype(np.float32)


@pytest.mark.parametrize("largest", [True, False])
@pytest.mark.parametrize(("size", "closing"), [(64, 5), (65, 0), (97, 3), (128, 15), (130, 9), (200, 21), (33, 63)])
def test_masks_of_bytes_are_those_of_opencv_and_scikit_image(
    size: int, closing: int, largest: bool, backend: str
) -> None:
    maps = level_maps(6, size, seed=size)
    made = extract_masks(maps, size, closing=closing, largest_component=largest, backend=backend)
    assert made.dtype == torch.float32 and made.shape == (6, 1, size, size)
    for mask, levels in zip(made[:, 0].numpy(), maps[:, 0].numpy(), strict=True):
        np.testing.assert_array_equal(mask, by_opencv(levels, closing, largest))
        np.testing.assert_array_equal(mask, by_scikit_image(levels, closing, largest))


@pytest.mark.parametrize("diameter", [1, 3, 5, 7, 9, 11, 15, 21, 31, 63, 101])
def test_the_ellipse_is_opencvs(diameter: int) -> None:
    element = np.zeros((diameter, diameter), np.uint8)
    for row, width in zip(element, half_widths(diameter), strict=True):
        row[diameter // 2 - width : diameter // 2 + width + 1] = 1
    np.testing.assert_array_equal(element, ellipse(diameter))


@pytest.mark.parametrize(("height", "width", "size"), [(16, 16, 97), (37, 53, 64), (100, 64, 33), (1, 5, 4)])
def test_resizing_is_opencvs_to_rounding(height: int, width: int, size: int) -> None:
    maps = smooth_maps(4, height, width)
    made = reference.resized(maps, size)[:, 0].numpy()
    for resized, values in zip(made, maps[:, 0].numpy(), strict=True):
        expected = cv2.resize(values, (size, size), interpolation=cv2.INTER_LINEAR)
        np.testing.assert_allclose(resized, expected, rtol=0, atol=2e-6)


@pytest.mark.parametrize("deviation", [0.4, 1.0, 2.5])
def test_smoothing_is_a_gaussian(deviation: float) -> None:
    maps = smooth_maps(2, 40, 40)
    made = reference.smoothed(maps, _gaussian(deviation))[:, 0].numpy()
    for smoothed, values in zip(made, maps[:, 0].numpy(), strict=True):
        side = 2 * int(4 * deviation + 0.5) + 1
        expected = cv2.GaussianBlur(values, (side, side), deviation)
        np.testing.assert_allclose(smoothed, expected, rtol=0, atol=2e-6)
        inner = gaussian(values.astype(np.float64), deviation)[12:-12, 12:-12]
        np.testing.assert_allclose(smoothed[12:-12, 12:-12], inner, rtol=0, atol=2e-6)


@needs_native
@settings(deadline=None, max_examples=60)
@given(
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.integers(1, 140),
    closing=st.integers(0, 20).map(lambda radius: 2 * radius - 1 if radius else 0),
    largest=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.1, 0.8, 5.0]),
    seed=st.integers(0, 999),
    bytes_=st.booleans(),
)
def test_backends_agree_to_the_pixel(
    height: int, width: int, size: int, closing: int, largest: bool, smoothing: float, seed: int, bytes_: bool
) -> None:
    maps = smooth_maps(3, height, width, blur=0.2 + seed % 4, seed=seed)
    maps = (maps * 255).byte() if bytes_ else maps
    options = {"closing": closing, "largest_component": largest, "smoothing": smoothing}
    native = extract_masks(maps, size, **options, backend="cpu")
    assert torch.equal(native, extract_masks(maps, size, **options, backend="reference"))


@needs_native
@pytest.mark.parametrize("threads", [1, 3])
def test_threads_change_nothing(threads: int) -> None:
    maps = smooth_maps(7, 50, 50)
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        made = extract_masks(maps, 100, backend="cpu")
    finally:
        torch.set_num_threads(before)
    assert torch.equal(made, extract_masks(maps, 100, backend="reference"))


def test_a_case_does_not_depend_on_its_neighbours(backend: str) -> None:
    maps = smooth_maps(5, 32, 32)
    whole = extract_masks(maps, 48, backend=backend)
    assert torch.equal(whole, torch.cat([extract_masks(m[None], 48, backend=backend) for m in maps]))


@pytest.mark.parametrize("picture", ["spiral", "comb", "diagonals", "noise"])
def test_components_that_wind(picture: str, backend: str) -> None:
    size = 67
    y, x = np.mgrid[:size, :size]
    pictures = {
        "spiral": np.sin(np.hypot(y - 33, x - 33) - np.arctan2(y - 33, x - 33)) > 0,
        "comb": (x % 2 == 0) | (y == 66),
        "diagonals": ((x + y) % 5 == 0) & (x < 50),
        "noise": np.random.default_rng(4).random((size, size)) > 0.6,
    }
    levels = (pictures[picture] * 200).astype(np.uint8)
    made = extract_masks(torch.from_numpy(levels)[None], size, closing=0, backend=backend)
    np.testing.assert_array_equal(made[0, 0].numpy(), by_scikit_image(levels, 0, True))


def test_of_equal_components_the_first_row_by_row_stays(backend: str) -> None:
    levels = torch.zeros(1, 8, 8, dtype=torch.uint8)
    levels[0, 1, 5:7] = levels[0, 3:5, 0] = levels[0, 6, 6:8] = 255
    mask = extract_masks(levels, 8, closing=0, backend=backend)[0, 0]
    assert mask.nonzero().tolist() == [[1, 5], [1, 6]]


@pytest.mark.parametrize("value", [0.0, 0.7, float("nan"), float("inf")])
def test_constant_maps_and_those_that_are_not_finite_give_empty_masks(value: float, backend: str) -> None:
    maps = smooth_maps(3, 20, 20)
    expected = extract_masks(maps, 30, backend=backend)
    maps[1] = value
    made = extract_masks(maps, 30, smoothing=0.0, backend=backend)
    assert made[1].sum() == 0
    assert torch.equal(made[[0, 2]], expected[[0, 2]])
    maps[0, 0, 3, 3] = float("nan")
    assert extract_masks(maps, 30, backend=backend)[0].sum() == 0


@pytest.mark.parametrize("size", [1, 40])
def test_no_case_at_all(size: int, backend: str) -> None:
    made = extract_masks(torch.empty(0, 1, 16, 16), size, smoothing=1.0, backend=backend)
    assert made.shape == (0, 1, size, size) and made.dtype == torch.float32


def test_layouts_and_dtypes(backend: str) -> None:
    maps = smooth_maps(4, 31, 24)
    expected = extract_masks(maps, 40, backend=backend)
    assert torch.equal(extract_masks(maps[:, 0], 40, backend=backend), expected)
    strided = torch.stack([maps, maps + 1], dim=-1)[..., 0]
    assert torch.equal(extract_masks(strided, 40, backend=backend), expected)
    assert torch.equal(extract_masks(maps.double(), 40, backend=backend), expected)
    half = maps.to(torch.bfloat16)
    assert torch.equal(extract_masks(half, 40, backend=backend), extract_masks(half.float(), 40, backend=backend))


def test_masks_have_no_gradient_and_leave_their_input_alone(backend: str) -> None:
    maps = smooth_maps(2, 16, 16).requires_grad_()
    before = maps.detach().clone()
    assert not extract_masks(maps, 16, backend=backend).requires_grad
    assert torch.equal(maps, before)


def test_pytorch_knows_the_operators() -> None:
    for maps in (smooth_maps(2, 12, 12), level_maps(2, 12), torch.empty(0, 1, 4, 4)):
        torch.library.opcheck(_otsu_threshold, (maps, 256, "auto"))
        torch.library.opcheck(_extract_masks, (maps, 20, 3, True, _gaussian(0.5), "auto"))


def test_compilation_sees_one_node() -> None:
    def pipeline(maps: torch.Tensor) -> torch.Tensor:
        return extract_masks(maps * 2, 24, smoothing=0.5).mean((1, 2, 3))

    maps = smooth_maps(3, 16, 16)
    compiled = torch.compile(pipeline, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(maps), pipeline(maps))


def test_autocast_changes_nothing() -> None:
    maps = smooth_maps(2, 16, 16)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = extract_masks(maps, 24)
    assert torch.equal(made, extract_masks(maps, 24))


def test_bad_input_is_told() -> None:
    maps = torch.zeros(1, 1, 4, 4)
    with pytest.raises(TypeError, match=r"uint8 or floating point, not torch\.bool"):
        extract_masks(maps > 0, 4)
    with pytest.raises(ValueError, match=r"shape \(N, 1, H, W\) or \(N, H, W\), not \(4, 4\)"):
        extract_masks(maps[0, 0], 4)
    with pytest.raises(ValueError, match=r"size must be in \[1, 8192\], not 0"):
        extract_masks(maps, 0)
    with pytest.raises(ValueError, match="closing must be 0 or an odd number of pixels up to 8192, not 4"):
        extract_masks(maps, 4, closing=4)
    for smoothing in (-1.0, float("nan"), 1001.0):
        with pytest.raises(ValueError, match=r"smoothing must be in \[0, 1000\] pixels"):
            extract_masks(maps, 4, smoothing=smoothing)
