from __future__ import annotations

import pytest
import torch

from lesionforge.kernels import triton_runtime


@pytest.fixture
def triton_device(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where Triton serves in this process: the GPU, or the CPU under TRITON_INTERPRET=1."""
    # The library's convolutions round float32 to TF32 unless told otherwise.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return "cpu" if triton_runtime.why_not(torch.empty(0)) is None else "cuda"


@pytest.fixture(params=triton_runtime.DTYPES, ids=str)
def triton_dtype(request: pytest.FixtureRequest, triton_device: str) -> torch.dtype:
    reason = triton_runtime.why_not(torch.empty(0, dtype=request.param, device=triton_device))
    if reason is not None:
        pytest.skip(reason)
    return request.param


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written holds NaN."""

    def poison(make):
        def fresh(*given, **settings) -> torch.Tensor:
            made = make(*given, **settings)
            return made.fill_(torch.nan) if made.is_floating_point() else made

        return fresh

    for place, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(place, name, poison(getattr(place, name)))
