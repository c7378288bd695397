"""The CUDA kernels against the definition: as C++ on the CPU by way of cuda_on_host/, and on a GPU where one is."""

from __future__ import annotations

import ctypes
import os
import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lesionforge.kernels import cuda, extract_masks, native, seeded_normal
from lesionforge.kernels.mask_extraction import OPS as MASK_OPS
from lesionforge.kernels.mask_extraction import _gaussian, reference
from lesionforge.kernels.mask_extraction import cuda as masks_on_cuda
from lesionforge.kernels.seeded_noise import OPS as NOISE_OPS
from lesionforge.kernels.seeded_noise import cpu as noise_on_cpu
from lesionforge.kernels.seeded_noise import cuda as noise_on_cuda
from lesionforge.kernels.seeded_noise import reference as noise_reference

ON_HOST = Path(__file__).with_name("cuda_on_host")
OPTIONS = ["-std=c++20", "-O1", "-ffp-contract=off", "-fPIC", "-shared", "-pthread", f"-I{ON_HOST}"]


def host_library(folder: Path) -> ctypes.CDLL:
    """The .cu sources, compiled for the CPU."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    library = folder / "libcuda_on_host.so"
    subprocess.run([compiler, *OPTIONS, ON_HOST / "all.cpp", "-o", library], check=True)
    return cuda.declared(ctypes.CDLL(str(library)))


@contextmanager
def on_host(device: torch.device) -> Iterator[tuple[int, None]]:
    yield 0, None


@pytest.fixture(scope="module", params=["host", "gpu"])
def device(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    if request.param == "gpu":
        reason = cuda.why_not()
        if reason is not None:
            pytest.skip(reason)
        yield "cuda"
        return
    library = host_library(tmp_path_factory.mktemp("cuda_on_host"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cuda, "_load", lambda: library)
        patch.setattr(cuda, "_current", on_host)
        yield "cpu"


@contextmanager
def fresh_memory_poisoned() -> Iterator[None]:
    """Fresh memory is full of random bytes."""
    fresh = torch.empty

    def garbage(*size: int, **options) -> Tensor:
        made = fresh(*size, **options)
        made.view(torch.uint8).random_()
        return made

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "empty", garbage)
        yield


def maps_of(cases: int, height: int, width: int, seed: int, *, roughness: int = 5, levels: bool = False) -> Tensor:
    noise = torch.randn(cases, 1, height, width, generator=torch.Generator().manual_seed(seed))
    maps = torch.nn.functional.avg_pool2d(noise, roughness, 1, roughness // 2)
    return ((maps.sigmoid() - 0.3) * 600).clamp(0, 255).byte() if levels else maps


def expect_same_masks(
    device: str, maps: Tensor, size: int, closing: int = 5, largest: bool = True, smoothing: float = 0.0
) -> Tensor:
    arguments = (size, closing, largest, _gaussian(smoothing))
    with fresh_memory_poisoned():
        made = masks_on_cuda.extract_masks(maps.to(device), *arguments)
    assert made.device.type == device and made.dtype == torch.float32
    assert torch.equal(made.cpu(), reference.extract_masks(maps, *arguments))
    return made.cpu()


def expect_same_thresholds(device: str, maps: Tensor, bins: int = 256) -> None:
    with fresh_memory_poisoned():
        made = masks_on_cuda.otsu_threshold(maps.to(device), bins)
    assert made.device.type == device
    torch.testing.assert_close(made.cpu(), reference.otsu_threshold(maps, bins), rtol=0, atol=0, equal_nan=True)


@settings(deadline=None, max_examples=25)
@given(
    cases=st.integers(0, 3),
    height=st.integers(1, 40),
    width=st.integers(1, 40),
    size=st.sampled_from([1, 2, 31, 32, 33, 63, 64, 65, 100, 131]),
    closing=st.sampled_from([0, 1, 3, 5, 21, 63, 65, 67, 131, 301]),
    largest=st.booleans(),
    smoothing=st.sampled_from([0.0, 0.7, 4.0]),
    seed=st.integers(0, 999),
    roughness=st.sampled_from([1, 3, 9]),
    levels=st.booleans(),
)
def test_masks_are_those_of_the_reference(
    device: str,
    cases: int,
    height: int,
    width: int,
    size: int,
    closing: int,
    largest: bool,
    smoothing: float,
    seed: int,
    roughness: int,
    levels: bool,
) -> None:
    maps = maps_of(cases, height, width, seed, roughness=roughness, levels=levels)
    expect_same_masks(device, maps, size, closing, largest, smoothing)
    expect_same_thresholds(device, maps, 256 if levels else 2 + seed % 255)


def pictures(size: int) -> dict[str, np.ndarray]:
    y, x = np.mgrid[:size, :size]
    middle = size // 2
    return {
        "spiral": np.sin(np.hypot(y - middle, x - middle) - np.arctan2(y - middle, x - middle)) > 0,
        "thin spiral": np.sin(1.5 * np.hypot(y - middle, x - middle) - np.arctan2(y - middle, x - middle)) > 0.7,
        "comb": (x % 2 == 0) | (y == size - 1),
        "comb upside down": (x % 2 == 0) | (y == 0),
        "comb to the left": (y % 2 == 0) | (x == size - 1),
        "diagonals up": ((x + y) % 5 == 0) & (x < size - 7),
        "diagonals down": ((x - y) % 5 == 0) & (x < size - 7),
        "chessboard": (x + y) % 2 == 0,
        "dots": (x % 2 == 0) & (y % 2 == 0),
        "equal squares": (x % 7 < 5) & (y % 7 < 5),
        "noise": np.random.default_rng(4).random((size, size)) > 0.6,
        "all but a pixel": (x != 3) | (y != 4),
        "a pixel": (x == 3) & (y == 4),
        "frame": (np.minimum(x, y) == 0) | (np.maximum(x, y) == size - 1),
    }


@pytest.mark.parametrize("size", [33, 96])
def test_components_that_wind_touch_by_corners_or_are_equal(device: str, size: int) -> None:
    maps = torch.from_numpy(np.stack(list(pictures(size).values())).astype(np.uint8) * 200)[:, None]
    made = expect_same_masks(device, maps, size, closing=0)
    assert made.sum((1, 2, 3)).min() == 1  # of the dots the first
    expect_same_masks(device, maps, size, closing=3)


@pytest.mark.parametrize(("height", "width"), [(1, 1), (40, 33), (31, 70)])
@pytest.mark.parametrize("closing", [0, 5, 67])
def test_cleaned_masks_are_those_of_the_reference(device: str, height: int, width: int, closing: int) -> None:
    masks = (maps_of(3, height, width, seed=6) > 0).byte()
    masks[1] = 1
    for largest in (True, False):
        with fresh_memory_poisoned():
            made = masks_on_cuda.clean_masks(masks.to(device), closing, largest)
        assert torch.equal(made.cpu(), reference.clean_masks(masks, closing, largest))


def test_constant_maps_and_those_that_are_not_finite(device: str) -> None:
    maps = maps_of(8, 20, 31, seed=1)
    maps[1], maps[2], maps[3, 0, 4, 5], maps[4, 0, 0, 0] = 0.7, 0.0, torch.nan, -torch.inf
    maps[5, 0, 19, 30], maps[5, 0, 1, 1] = 3e38, -3e38  # the range overflows
    maps[6, 0, 2, 2] = -torch.nan
    made = expect_same_masks(device, maps, 45)
    assert (made.sum((1, 2, 3)) > 0).tolist() == [True, *[False] * 6, True]
    expect_same_masks(device, maps, 45, smoothing=1.0)
    expect_same_thresholds(device, maps)
    for value in (0, 7, 255):
        expect_same_masks(device, torch.full((2, 1, 9, 9), value, dtype=torch.uint8), 9)
        expect_same_thresholds(device, torch.full((2, 1, 9, 9), value, dtype=torch.uint8))


def test_taps_of_several_launches(device: str) -> None:
    assert len(_gaussian(80.0)) > 512
    expect_same_masks(device, maps_of(2, 16, 16, seed=2), 40, smoothing=80.0)


def test_a_case_shared_by_several_blocks(device: str) -> None:
    maps = maps_of(2, 150, 170, seed=3)
    expect_same_masks(device, maps, 160)
    expect_same_thresholds(device, maps)
    expect_same_thresholds(device, maps_of(2, 150, 170, seed=3, levels=True))


def test_layouts(device: str) -> None:
    maps = maps_of(3, 24, 31, seed=5)
    expect_same_masks(device, maps.transpose(2, 3), 40)
    expect_same_thresholds(device, torch.stack([maps, maps + 1], dim=-1)[..., 0])


@pytest.mark.parametrize("count", [0, 1, 2, 3, 4, 1001, 1024])
@pytest.mark.parametrize("cases", [0, 1, 5])
def test_noise_is_that_of_the_reference(device: str, cases: int, count: int) -> None:
    seeds = torch.tensor([0, 1, -1, 2**63 - 1, -(2**63)])[:cases]
    arguments = (count, 3, 2**32 - 1)
    with fresh_memory_poisoned():
        uniforms = noise_on_cuda.seeded_uniform(seeds.to(device), *arguments).cpu()
        normals = noise_on_cuda.seeded_normal(seeds.to(device), *arguments).cpu()
    assert torch.equal(uniforms, noise_reference.seeded_uniform(seeds, *arguments))
    torch.testing.assert_close(normals, noise_reference.seeded_normal(seeds, *arguments), rtol=0, atol=1e-6)
    if native.why_missing() is None:
        assert torch.equal(normals, noise_on_cpu.seeded_normal(seeds, *arguments))


def test_words_are_those_of_the_reference(device: str) -> None:
    key, counter = torch.randint(0, 1 << 32, (7, 1, 2)), torch.randint(0, 1 << 32, (4, 50)).T
    with fresh_memory_poisoned():
        made = noise_on_cuda.philox_u32(key.to(device), counter.to(device))
    assert torch.equal(made.cpu(), noise_reference.philox_u32(key, counter))


def test_an_error_of_cuda_is_told(device: str, monkeypatch: pytest.MonkeyPatch) -> None:
    if device == "cuda":
        pytest.skip("an error on the GPU could outlast this test")

    @contextmanager
    def on_another(device: torch.device) -> Iterator[tuple[int, None]]:
        yield 1, None

    monkeypatch.setattr(cuda, "_current", on_another)
    with pytest.raises(RuntimeError, match="seeded_normal on cpu: CUDA error 101: invalid device ordinal"):
        noise_on_cuda.seeded_normal(torch.tensor([1]), 5, 0, 0)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_the_public_functions_reach_it_by_name_on_the_current_stream() -> None:
    if reason := cuda.why_not():
        pytest.skip(reason)
    maps = maps_of(3, 24, 31, seed=5).cuda()
    with torch.cuda.stream(torch.cuda.Stream()):
        maps = maps * 2
        masks = extract_masks(maps, 40, backend="cuda")
        normals = seeded_normal([1, 2], (5, 7), device="cuda", backend="cuda")
    torch.cuda.synchronize()
    assert torch.equal(masks, extract_masks(maps, 40, backend="reference"))
    torch.testing.assert_close(normals, seeded_normal([1, 2], (5, 7), device="cuda", backend="reference"))


def test_automatic_choice_waits_for_a_measurement() -> None:
    for op in (*MASK_OPS, *NOISE_OPS):
        assert "has not been measured on a GPU" in str(op.backends["cuda"].reservation())


@pytest.fixture
def fresh() -> Iterator[None]:
    cuda._load.cache_clear()
    yield
    cuda._load.cache_clear()


@pytest.mark.usefixtures("fresh")
def test_it_says_why_it_cannot_serve(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert cuda.why_not() == "there is no CUDA device"
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert cuda.why_not(torch.zeros(1)) == "it works on CUDA tensors, these are on cpu"
    monkeypatch.setattr(cuda, "NAME", str(tmp_path / "missing.so"))
    assert "not built: no nvcc of CUDA 12 or newer was found" in str(cuda.why_not())
    with pytest.raises(ImportError, match="not built"):
        cuda.workspace("mask_workspace", torch.device("cpu"), 1, 2, 3)


@pytest.mark.usefixtures("fresh")
def test_a_library_that_does_not_load_is_told_apart(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    (tmp_path / "broken.so").write_text("no library")
    monkeypatch.setattr(cuda, "NAME", str(tmp_path / "broken.so"))
    assert "the CUDA kernels do not load: " in str(cuda.why_not())
