from __future__ import annotations

import hashlib
import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

from lesionforge.kernels import philox_u32, seeded_normal, seeded_uniform, stream_of
from lesionforge.kernels.seeded_noise import _normal

DRAWS = {"normal": seeded_normal, "uniform": seeded_uniform}
seed = st.integers(0, 2**64 - 1)
counter_word = st.integers(0, 2**32 - 1)
# Those that serve tensors in main memory.
AVAILABLE = [name for name, backend in _normal.backends.items() if backend.why_not(torch.empty(0)) is None]
needs_native = pytest.mark.skipif("cpu" not in AVAILABLE, reason="the native module is not built")


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(params=DRAWS)
def draw(request: pytest.FixtureRequest):
    return DRAWS[request.param]


def words_by_definition(seed: int, count: int, step: int, stream: int) -> np.ndarray:
    blocks = [[block, step, stream, 0] for block in range(math.ceil(count / 4))]
    key = torch.tensor([seed % 2**32, seed >> 32])
    return philox_u32(key, torch.tensor(blocks).reshape(-1, 4), backend="reference").flatten()[:count].numpy()


def test_normals_follow_their_definition(backend: str) -> None:
    seed, step, stream = 0x0123456789ABCDEF, 7, 0xFFFFFFFF
    words = words_by_definition(seed, 4 * 333, step, stream).astype(np.float64).reshape(-1, 2)
    radius, angle = np.sqrt(-2 * np.log((words[:, 0] + 1) / 2**32)), 2 * np.pi * words[:, 1] / 2**32
    expected = np.stack([radius * np.cos(angle), radius * np.sin(angle)], axis=1).ravel()
    made = seeded_normal([seed], (4 * 333,), step=step, stream=stream, backend=backend)
    np.testing.assert_allclose(made[0].numpy(), expected, rtol=0, atol=1e-6)


def test_uniforms_follow_their_definition(backend: str) -> None:
    seed, step, stream = 2**64 - 1, 0, 3
    made = seeded_uniform([seed], (1001,), step=step, stream=stream, backend=backend)
    expected = (words_by_definition(seed, 1001, step, stream) >> 8) / 2**24
    assert made[0].double().tolist() == expected.tolist()


@needs_native
@settings(deadline=None)
@given(
    seeds=st.lists(seed, max_size=5),
    shape=st.lists(st.integers(0, 13), max_size=3),
    step=counter_word,
    stream=counter_word,
)
def test_backends_agree(seeds: list[int], shape: list[int], step: int, stream: int) -> None:
    for draw, tolerance in ((seeded_normal, 1e-6), (seeded_uniform, 0.0)):
        reference = draw(seeds, shape, step=step, stream=stream, backend="reference")
        native = draw(seeds, shape, step=step, stream=stream, backend="cpu")
        torch.testing.assert_close(native, reference, rtol=0, atol=tolerance)


@needs_native
@pytest.mark.parametrize("count", [1, 3, 255, 256, 257, 5 * 256 + 2, 3 * 64 * 64])
@pytest.mark.parametrize("threads", [1, 3])
def test_backends_agree_at_tile_edges_and_on_threads(count: int, threads: int) -> None:
    before = torch.get_num_threads()
    torch.set_num_threads(threads)
    try:
        native = seeded_normal(range(24), (count,), backend="cpu")
    finally:
        torch.set_num_threads(before)
    reference = seeded_normal(range(24), (count,), backend="reference")
    torch.testing.assert_close(native, reference, rtol=0, atol=1e-6)


@settings(deadline=None)
@given(seeds=st.lists(seed, min_size=1, max_size=9), order=st.randoms(use_true_random=False), count=st.integers(1, 70))
def test_a_case_depends_on_no_other_case(seeds: list[int], order, count: int) -> None:
    together = seeded_normal(seeds, (count,), step=2, stream=5)
    rows = list(range(len(seeds)))
    order.shuffle(rows)
    assert torch.equal(seeded_normal([seeds[row] for row in rows], (count,), step=2, stream=5), together[rows])
    alone = torch.cat([seeded_normal([seed], (count,), step=2, stream=5) for seed in seeds])
    assert torch.equal(alone, together)


def test_a_place_depends_on_no_later_place(draw, backend: str) -> None:
    long = draw([11, 12], (1000,), backend=backend)
    for count in (1, 2, 5, 64, 257, 999):
        assert torch.equal(draw([11, 12], (count,), backend=backend), long[:, :count])
    assert torch.equal(draw([11, 12], (10, 4, 25), backend=backend), long.reshape(2, 10, 4, 25))


@pytest.mark.parametrize("shape", [(), (1,), (3,), (3, 5, 7), (0,), (2, 0, 4)])
@pytest.mark.parametrize("cases", [0, 1, 3])
def test_shapes(draw, shape: tuple[int, ...], cases: int, backend: str) -> None:
    made = draw(range(cases), shape, backend=backend)
    assert made.shape == (cases, *shape)
    assert made.dtype == torch.float32
    assert made.is_contiguous()


def test_seed_step_and_stream_all_matter(draw, backend: str) -> None:
    base = draw([1], (64,), backend=backend)
    others = [
        draw([2], (64,), backend=backend),
        draw([1 + 2**32], (64,), backend=backend),
        draw([1], (64,), step=1, backend=backend),
        draw([1], (64,), stream=1, backend=backend),
    ]
    rows = torch.cat([base, *others])
    assert torch.corrcoef(rows).fill_diagonal_(0).abs().max() < 0.6
    assert not any((rows[i] == rows[j]).any() for i in range(5) for j in range(i))


def test_seeds_as_bit_patterns(draw, backend: str) -> None:
    seeds = [0, 1, 2**63 - 1, 2**63, 2**64 - 1]
    patterns = torch.tensor([0, 1, 2**63 - 1, -(2**63), -1])
    assert torch.equal(draw(patterns, (9,), backend=backend), draw(seeds, (9,), backend=backend))
    strided = torch.stack([patterns, torch.zeros_like(patterns)], dim=1)[:, 0]
    assert torch.equal(draw(strided, (9,), backend=backend), draw(seeds, (9,), backend=backend))


def test_distributions(backend: str) -> None:
    normals = seeded_normal(range(50), (4001,), step=3, stream=9, backend=backend).double()
    assert stats.kstest(normals.flatten().numpy(), "norm").pvalue > 1e-3
    assert stats.kstest(normals[:, ::4].flatten().numpy(), "norm").pvalue > 1e-3
    assert abs(float(stats.kurtosis(normals.flatten().numpy()))) < 0.05
    neighbours = torch.corrcoef(normals[:, :4000].reshape(-1, 4).T).fill_diagonal_(0)
    assert neighbours.abs().max() < 0.02
    uniforms = seeded_uniform(range(50), (4001,), step=3, stream=9, backend=backend)
    assert uniforms.min() >= 0
    assert uniforms.max() < 1
    assert stats.kstest(uniforms.double().flatten().numpy(), "uniform").pvalue > 1e-3


def test_narrow_and_wide_types_are_rounded_from_float32() -> None:
    base = seeded_normal([5], (100,))
    for dtype in (torch.float16, torch.bfloat16, torch.float64):
        assert torch.equal(seeded_normal([5], (100,), dtype=dtype), base.to(dtype))
    assert torch.equal(seeded_uniform([5], (100,), dtype=torch.float64), seeded_uniform([5], (100,)).double())


def test_default_dtype_of_torch_does_not_matter(draw, backend: str) -> None:
    expected = draw([5], (100,), backend=backend)
    torch.set_default_dtype(torch.float64)
    try:
        made = draw([5], (100,), backend=backend)
    finally:
        torch.set_default_dtype(torch.float32)
    assert made.dtype == torch.float32
    assert torch.equal(made, expected)


def test_torch_random_state_is_neither_read_nor_moved(draw) -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    first = draw([5], (10,))
    assert torch.equal(torch.get_rng_state(), state)
    torch.manual_seed(2)
    assert torch.equal(draw([5], (10,)), first)


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"seeds": [-1]}, ValueError, r"seed must be in \[0, 2\*\*64\), not -1"),
        ({"seeds": [2**64]}, ValueError, "seed must be in"),
        ({"seeds": [0.5]}, TypeError, "float"),
        ({"seeds": torch.zeros(2)}, TypeError, "tensor of seeds must be int64"),
        ({"seeds": torch.zeros(2, 2, dtype=torch.int64)}, TypeError, "tensor of seeds must be int64"),
        ({"step": 2**32}, ValueError, r"step must be in \[0, 2\*\*32\)"),
        ({"stream": -1}, ValueError, r"stream must be in \[0, 2\*\*32\)"),
        ({"shape": (3, -1)}, ValueError, "negative size"),
        ({"shape": (2**18, 2**18)}, ValueError, r"at most 2\*\*34"),
        ({"dtype": torch.int32}, TypeError, "int32"),
    ],
)
def test_bad_input(draw, arguments: dict, error: type[Exception], message: str) -> None:
    arguments = {"seeds": [0], "shape": (3,)} | arguments
    seeds, shape = arguments.pop("seeds"), arguments.pop("shape")
    with pytest.raises(error, match=message):
        draw(seeds, shape, **arguments)


def test_uniforms_refuse_types_that_would_round_to_one() -> None:
    with pytest.raises(TypeError, match="round up to 1"):
        seeded_uniform([0], (3,), dtype=torch.float16)


@pytest.mark.parametrize("name", ["", "ddpm", "Läsion"])
def test_stream_of_is_the_head_of_blake2b(name: str) -> None:
    assert stream_of(name).to_bytes(4, "little") == hashlib.blake2b(name.encode("utf-8")).digest()[:4]


def test_numbers_are_pinned() -> None:
    """Runs of years ago are regenerated from their seeds: these numbers may never change."""
    assert stream_of("ddpm") == 4080990024
    made = seeded_normal([2**64 - 59], (6,), step=999, stream=stream_of("ddpm"), backend="reference")
    expected = [1.9885707, 0.3171508, 0.9491162, 0.3592964, -1.5267988, -0.1787415]  # by hand, from Python's integers
    torch.testing.assert_close(made[0], torch.tensor(expected), rtol=0, atol=1e-6)


@pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device")
def test_reference_on_cuda_agrees(draw) -> None:
    on_cuda = draw(range(3), (1001,), step=1, device="cuda")
    torch.testing.assert_close(on_cuda.cpu(), draw(range(3), (1001,), step=1, backend="reference"), rtol=0, atol=1e-6)
