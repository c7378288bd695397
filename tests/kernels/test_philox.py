"""Philox4x32-10 against the known answers of Random123 1.14.0 (kat_vectors) and against numpy's uint64 arithmetic."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lesionforge.kernels import philox_u32
from lesionforge.kernels.seeded_noise import _philox

ONES = 0xFFFFFFFF
KNOWN_ANSWERS = {
    "zeros": ((0, 0), (0, 0, 0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    "ones": ((ONES, ONES), (ONES, ONES, ONES, ONES), (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    "digits of pi": (
        (0xA4093822, 0x299F31D0),
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
}
word = st.integers(0, ONES)
# Those that serve tensors in main memory.
AVAILABLE = [name for name, backend in _philox.backends.items() if backend.why_not(torch.empty(0)) is None]


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def philox_numpy(key: tuple[int, ...], counter: tuple[int, ...]) -> list[int]:
    """An independent Philox: 64-bit products in uint64, one block."""
    low = np.uint64(ONES)
    k, c = [np.uint64(w) for w in key], [np.uint64(w) for w in counter]
    for _ in range(10):
        p0, p1 = np.uint64(0xD2511F53) * c[0], np.uint64(0xCD9E8D57) * c[2]
        c = [(p1 >> np.uint64(32)) ^ c[1] ^ k[0], p1 & low, (p0 >> np.uint64(32)) ^ c[3] ^ k[1], p0 & low]
        k = [(k[0] + np.uint64(0x9E3779B9)) & low, (k[1] + np.uint64(0xBB67AE85)) & low]
    return [int(w) for w in c]


@pytest.mark.parametrize("case", KNOWN_ANSWERS)
def test_known_answers(case: str, backend: str) -> None:
    key, counter, expected = KNOWN_ANSWERS[case]
    assert philox_u32(torch.tensor(key), torch.tensor(counter), backend=backend).tolist() == list(expected)


@given(key=st.tuples(word, word), counter=st.tuples(word, word, word, word))
def test_agrees_with_unsigned_arithmetic(key: tuple[int, ...], counter: tuple[int, ...]) -> None:
    expected = philox_numpy(key, counter)
    assert philox_u32(torch.tensor(key), torch.tensor(counter), backend="reference").tolist() == expected
    assert philox_u32(torch.tensor(key), torch.tensor(counter)).tolist() == expected


@pytest.mark.parametrize(
    ("key_shape", "counter_shape", "leading"),
    [
        ((2,), (5, 4), (5,)),
        ((3, 1, 2), (7, 4), (3, 7)),
        ((3, 2), (4,), (3,)),
        ((0, 2), (4,), (0,)),
        ((2,), (2, 0, 4), (2, 0)),
    ],
)
def test_leading_dimensions_broadcast(
    key_shape: tuple[int, ...], counter_shape: tuple[int, ...], leading: tuple[int, ...], backend: str
) -> None:
    key, counter = torch.randint(0, 1 << 32, key_shape), torch.randint(0, 1 << 32, counter_shape)
    words = philox_u32(key, counter, backend=backend)
    assert words.shape == (*leading, 4)
    rows = zip(key.expand(*leading, 2).reshape(-1, 2), counter.expand(*leading, 4).reshape(-1, 4), strict=True)
    expected = [philox_numpy(tuple(k.tolist()), tuple(c.tolist())) for k, c in rows]
    assert words.reshape(-1, 4).tolist() == expected


def test_strided_words(backend: str) -> None:
    key, counter = torch.randint(0, 1 << 32, (2, 6)).T, torch.randint(0, 1 << 32, (4, 6)).T
    expected = philox_u32(key.contiguous(), counter.contiguous(), backend="reference")
    assert torch.equal(philox_u32(key, counter, backend=backend), expected)


@pytest.mark.parametrize(
    ("key", "counter", "error", "message"),
    [
        (torch.zeros(2), torch.zeros(4, dtype=torch.int64), TypeError, "key must be int64"),
        (torch.zeros(2, dtype=torch.int64), torch.zeros(4, dtype=torch.int32), TypeError, "counter must be int64"),
        (
            torch.zeros(3, dtype=torch.int64),
            torch.zeros(4, dtype=torch.int64),
            ValueError,
            r"key must have shape \(..., 2\)",
        ),
        (torch.zeros((), dtype=torch.int64), torch.zeros(4, dtype=torch.int64), ValueError, "key must have shape"),
        (torch.tensor([0, -1]), torch.zeros(4, dtype=torch.int64), ValueError, "key has words outside"),
        (torch.tensor([0, 0]), torch.tensor([0, 0, 1 << 32, 0]), ValueError, "counter has words outside"),
    ],
)
def test_bad_input(key: torch.Tensor, counter: torch.Tensor, error: type[Exception], message: str) -> None:
    with pytest.raises(error, match=message):
        philox_u32(key, counter)
