from __future__ import annotations

import cv2
import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from scipy import ndimage
from skimage.filters import threshold_otsu

from lesionforge.kernels import BackendUnavailable, otsu_threshold
from lesionforge.kernels.mask_extraction import _threshold

# Those that serve tensors in main memory.
AVAILABLE = [name for name, backend in _threshold.backends.items() if backend.why_not(torch.empty(0)) is None]


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def smooth_maps(count: int, height: int, width: int, *, seed: int = 0) -> torch.Tensor:
    noise = np.random.default_rng(seed).standard_normal((count, height, width))
    return torch.from_numpy(ndimage.gaussian_filter(noise, (0, 2, 2)).astype(np.float32))[:, None]


def in_bytes(maps: torch.Tensor) -> torch.Tensor:
    low, high = maps.amin((1, 2, 3), keepdim=True), maps.amax((1, 2, 3), keepdim=True)
    return ((maps - low) / (high - low) * 255).round().to(torch.uint8)


def by_definition(levels: np.ndarray) -> int:
    """Otsu 1979, eq. 18, in rational numbers that Python keeps exact; the smallest of equal levels."""
    from fractions import Fraction

    values = levels.ravel().tolist()
    best, greatest = max(values), Fraction(-1)
    for level in sorted(set(values))[:-1]:
        low = [v for v in values if v <= level]
        gap = Fraction(sum(low), len(low)) - Fraction(sum(values) - sum(low), len(values) - len(low))
        between = len(low) * (len(values) - len(low)) * gap**2
        if between > greatest:
            best, greatest = level, between
    return best


@pytest.mark.parametrize(("height", "width"), [(64, 64), (37, 101), (256, 256)])
def test_thresholds_of_bytes_are_those_of_opencv_and_scikit_image(height: int, width: int, backend: str) -> None:
    maps = in_bytes(smooth_maps(12, height, width))
    made = otsu_threshold(maps, backend=backend)
    assert made.dtype == torch.uint8
    assert made.tolist() == [int(threshold_otsu(levels.numpy())) for levels in maps[:, 0]]
    assert made.tolist() == [int(cv2.threshold(m.numpy(), 0, 255, cv2.THRESH_OTSU)[0]) for m in maps[:, 0]]


@settings(deadline=None, max_examples=60)
@given(levels=hnp.arrays(np.uint8, hnp.array_shapes(min_dims=2, max_dims=2, max_side=9)))
def test_every_backend_follows_the_definition(levels: np.ndarray) -> None:
    for backend in AVAILABLE:
        assert int(otsu_threshold(torch.from_numpy(levels)[None], backend=backend)[0]) == by_definition(levels)


@pytest.mark.parametrize("bins", [2, 17, 256])
def test_backends_agree_on_floats(bins: int) -> None:
    maps = smooth_maps(7, 33, 50) * 40 - 3
    results = [otsu_threshold(maps, bins=bins, backend=backend) for backend in AVAILABLE]
    assert all(torch.equal(result, results[0]) for result in results)


def test_the_threshold_of_floats_is_the_largest_value_of_the_background(backend: str) -> None:
    maps = smooth_maps(5, 48, 48)
    made, levels = otsu_threshold(maps, backend=backend), in_bytes(maps)
    for values, level, threshold in zip(maps, levels, made, strict=True):
        background = level <= int(threshold_otsu(level.numpy()[0]))
        assert float(threshold) == float(values[background].max())
        assert torch.equal(values > threshold, ~background)


@settings(deadline=None, max_examples=30)
@given(scale=st.sampled_from([2.0**-20, 0.5, 4.0, 2.0**40]))
def test_scaling_by_a_power_of_two_scales_the_threshold(scale: float) -> None:
    maps = smooth_maps(3, 20, 20)
    for backend in AVAILABLE:
        expected = otsu_threshold(maps, backend=backend) * scale
        assert torch.equal(otsu_threshold(maps * scale, backend=backend), expected)


def test_a_constant_map_has_its_value_for_a_threshold(backend: str) -> None:
    assert otsu_threshold(torch.full((2, 1, 4, 4), 0.3), backend=backend).tolist() == pytest.approx([0.3, 0.3])
    assert otsu_threshold(torch.full((1, 4, 4), 200, dtype=torch.uint8), backend=backend).tolist() == [200]


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
@pytest.mark.parametrize("place", [0, 17, 24])
def test_a_map_that_is_not_finite_has_none_and_spares_its_neighbours(value: float, place: int, backend: str) -> None:
    maps = smooth_maps(3, 5, 5)
    expected = otsu_threshold(maps, backend=backend)
    maps[1].view(-1)[place] = value
    made = otsu_threshold(maps, backend=backend)
    assert made.isnan().tolist() == [False, True, False]
    assert torch.equal(made[[0, 2]], expected[[0, 2]])


def test_layouts_and_dtypes(backend: str) -> None:
    maps = smooth_maps(3, 24, 31)
    expected = otsu_threshold(maps, backend=backend)
    assert torch.equal(otsu_threshold(maps[:, 0], backend=backend), expected)
    assert torch.equal(otsu_threshold(maps.transpose(2, 3), backend=backend), expected)
    assert torch.equal(otsu_threshold(maps.double(), backend=backend), expected)
    half = maps.to(torch.bfloat16)
    assert torch.equal(otsu_threshold(half, backend=backend), otsu_threshold(half.float(), backend=backend))
    assert otsu_threshold(maps[:0], backend=backend).shape == (0,)
    assert otsu_threshold(maps[:0].byte(), backend=backend).shape == (0,)


def test_bad_input_is_told() -> None:
    with pytest.raises(TypeError, match=r"uint8 or floating point, not torch\.int64"):
        otsu_threshold(torch.zeros(1, 1, 2, 2, dtype=torch.int64))
    with pytest.raises(ValueError, match=r"shape \(N, 1, H, W\) or \(N, H, W\), not \(1, 3, 2, 2\)"):
        otsu_threshold(torch.zeros(1, 3, 2, 2))
    with pytest.raises(ValueError, match="1 to 8192 pixels a side, not 0 x 2"):
        otsu_threshold(torch.zeros(1, 1, 0, 2))
    with pytest.raises(ValueError, match=r"bins must be in \[2, 256\], not 257"):
        otsu_threshold(torch.zeros(1, 1, 2, 2), bins=257)
    with pytest.raises(ValueError, match="bins must be 256, not 10"):
        otsu_threshold(torch.zeros(1, 1, 2, 2, dtype=torch.uint8), bins=10)
    with pytest.raises(BackendUnavailable, match="no backend 'abacus'"):
        otsu_threshold(torch.zeros(1, 1, 2, 2), backend="abacus")
