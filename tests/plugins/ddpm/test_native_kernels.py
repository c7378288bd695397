from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
import torch

from lesionforge.core.context import Context
from lesionforge.kernels import native
from lesionforge.plugins.ddpm.sampling import sample
from lesionforge.plugins.diffusion.schedule import NoiseSchedule
from lesionforge.plugins.diffusion.schedulers import ReverseProcess

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason="the native module is not built")


@pytest.mark.parametrize(("precision", "tolerance"), [("fp32", 1e-4), ("bf16", 5e-2)])
def test_the_same_cases_with_native_kernels_on_and_off(
    precision: str, tolerance: float, tiny_network: Callable, monkeypatch: pytest.MonkeyPatch
) -> None:
    network = tiny_network().to(memory_format=torch.channels_last)
    process = ReverseProcess(NoiseSchedule(40), "ddpm", 4)
    context = Context(torch.device("cpu"), precision, "ddpm")  # type: ignore[arg-type]
    with_native = sample(network, process, [3, 2**63, 5], size=16, context=context)
    monkeypatch.setitem(sys.modules, "lesionforge._native", None)
    native._load.cache_clear()
    try:
        without = sample(network, process, [3, 2**63, 5], size=16, context=context)
    finally:
        native._load.cache_clear()
    assert not torch.equal(with_native, without)
    torch.testing.assert_close(with_native, without, atol=tolerance, rtol=0)
