from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

if TYPE_CHECKING:
    import torch


@pytest.hookimpl(tryfirst=True)
def pytest_configure(config: pytest.Config) -> None:
    # pytest names test modules by their path below its root; from tests/ that would be a `kernels` that shadows PyPI's.
    config._rootpath = config.rootpath.parent


def _on_one_thread() -> Iterator[None]:
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


one_thread = pytest.fixture(_on_one_thread, name="one_thread")
one_thread_for_the_module = pytest.fixture(_on_one_thread, name="one_thread_for_the_module", scope="module")


# The fixtures of tests/kernels stand here: pytest would name a conftest of that folder `kernels.conftest`. Every test
# loads this file, so torch is loaded in the fixtures.


@pytest.fixture
def triton_device(monkeypatch: pytest.MonkeyPatch) -> str:
    """Where Triton serves in this process: the GPU, or the CPU under TRITON_INTERPRET=1."""
    import torch

    from lesionforge.kernels import triton_runtime

    # The library's convolutions round float32 to TF32 unless told otherwise.
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    return "cpu" if triton_runtime.why_not(torch.empty(0)) is None else "cuda"


@pytest.fixture(params=["float32", "bfloat16", "float16"])
def triton_dtype(request: pytest.FixtureRequest, triton_device: str) -> torch.dtype:
    import torch

    from lesionforge.kernels import triton_runtime

    dtype = getattr(torch, request.param)
    reason = triton_runtime.why_not(torch.empty(0, dtype=dtype, device=triton_device))
    if reason is not None:
        pytest.skip(reason)
    return dtype


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Memory that nobody has written holds NaN."""
    import torch

    def poison(make):
        def fresh(*given, **settings) -> torch.Tensor:
            made = make(*given, **settings)
            return made.fill_(torch.nan) if made.is_floating_point() else made

        return fresh

    for place, name in ((torch, "empty"), (torch, "empty_like"), (torch.Tensor, "new_empty")):
        monkeypatch.setattr(place, name, poison(getattr(place, name)))
