"""The Triton backends without a GPU: interpreted in a process of their own, and compiled ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from lesionforge.kernels import attention_triton, map_leakage, map_refinement, norm_act_conv, triton_runtime
from lesionforge.kernels.map_leakage import _triton as leakage
from lesionforge.kernels.map_refinement import _triton as refinement

HERE = Path(__file__).parent
INTERPRETED = [HERE / f"test_{op}_triton.py" for op in ("attention_leakage", "attention_refinement", "norm_act_conv2d")]
# What every GPU of capability 8 gives a program, and what those of 9 do.
SHARED_BYTES = {"sm_80": 99 << 10, "sm_90": 227 << 10}


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_"))}
    return {**kept, "TRITON_DEFAULT_FP_FUSION": "1", **changed}


def test_under_the_interpreter() -> None:
    pytest.importorskip("triton")
    # Triton decides when it is imported whether it interprets; other tests of this process may want it compiled.
    pytest_here = [sys.executable, "-m", "pytest", "-c", HERE.parent / "pytest.ini", "-q", "-p", "no:cacheprovider"]
    command = [*pytest_here, *INTERPRETED]
    ran = subprocess.run(command, env=environment(TRITON_INTERPRET="1"), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout and "no CUDA device" not in ran.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton's assembler comes for Linux")
def test_registers_spills_and_shared_memory_stay_within_the_recorded_figures() -> None:
    pytest.importorskip("triton")
    recorded = json.loads((HERE / "triton_registers.json").read_text())
    command = [sys.executable, HERE / "compile_triton_kernels.py"]
    ran = subprocess.run(command, env=environment(), check=True, capture_output=True, text=True)
    found = json.loads(ran.stdout)
    assert set(found["kernels"]) == set(recorded["kernels"])
    if found["triton"] != recorded["triton"]:
        pytest.skip(f"figures are of Triton {recorded['triton']}, this is {found['triton']}; it compiled all kernels")
    for name, used in found["kernels"].items():
        assert used["shared_bytes"] <= SHARED_BYTES[name.split()[-1]], name
        for resource, amount in used.items():
            assert amount <= recorded["kernels"][name][resource], f"{name}: {resource}"


def test_says_why_it_cannot_serve(monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("triton")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert "no CUDA device" in str(triton_runtime.why_not())
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert "these are on cpu" in str(triton_runtime.why_not(torch.zeros(1)))
    assert "up to 256 channels" in str(attention_triton.why_not(torch.zeros(1, 1, 1, 257)))


@pytest.fixture
def fresh_triton(monkeypatch: pytest.MonkeyPatch):
    """Triton is looked for anew, as on a machine with a GPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    triton_runtime._why_missing.cache_clear()
    yield
    triton_runtime._why_missing.cache_clear()


@pytest.mark.usefixtures("fresh_triton")
def test_a_missing_triton_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "triton", None)
    assert triton_runtime.why_not() == "the package triton is not installed"


@pytest.mark.usefixtures("fresh_triton")
@pytest.mark.parametrize("error", ["ImportError('libcuda.so.1')", "RuntimeError('no driver')"])
def test_a_broken_triton_is_a_reason_and_does_not_concern_main_memory(
    error: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "triton.py").write_text(f"raise {error}")
    for name in [name for name in sys.modules if name.partition(".")[0] == "triton"]:
        monkeypatch.delitem(sys.modules, name)
    monkeypatch.syspath_prepend(tmp_path)
    query = torch.zeros(1, 2, 8, 4, requires_grad=True)
    refined = map_refinement.attention_refinement(query, query, torch.zeros(1, 8, 1))
    assert refined.shape == (1, 8, 1)
    x, weight, channel = torch.zeros(1, 4, 3, 3, requires_grad=True), torch.zeros(4, 4, 3, 3), torch.zeros(4)
    norm_act_conv.norm_act_conv2d(x, channel, channel, weight, None, groups=2).sum().backward()
    reason = f"the package triton does not load: {error.partition('(')[0]}: "
    for op in (*map_leakage.OPS, *map_refinement.OPS, *norm_act_conv.OPS):
        row = next(row for row in op.diagnose(measure=False) if row["backend"] == "triton")
        assert str(row["reason"]).startswith(reason)


def test_work_in_main_memory_does_not_import_triton() -> None:
    program = (
        "import sys, torch\n"
        "from lesionforge.kernels.norm_act_conv import OPS, norm_act_conv2d\n"
        "torch.cuda.is_available = lambda: True\n"
        "loaded = 'triton' in sys.modules\n"
        "x = torch.zeros(1, 4, 3, 3, requires_grad=True)\n"
        "norm_act_conv2d(x, x[0, :, 0, 0], x[0, :, 0, 0], torch.zeros(4, 4, 3, 3), None, groups=2)\n"
        "assert loaded or 'triton' not in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], env=environment(), check=True)


@pytest.mark.parametrize("folder", [map_leakage, map_refinement, norm_act_conv], ids=lambda folder: folder.__name__)
def test_nothing_unmeasured_is_chosen_by_itself(folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(triton_runtime, "why_not", lambda *tensors: None)
    (op,) = folder.OPS
    assert "serves by name only" in str(op.backends["triton"].reservation())
    assert not op.choose("auto").name.startswith("triton")


class Unlaunched:
    """Kernels of which no launch does anything, for tensors without data."""

    def __getattr__(self, name: str) -> Unlaunched:
        return self

    def __getitem__(self, grid: tuple[int, ...]):
        return lambda *given, **options: None


class LargestTensor(TorchDispatchMode):
    numbers = 0

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        made = func(*args, **(kwargs or {}))
        if isinstance(made, Tensor):
            self.numbers = max(self.numbers, made.numel())
        return made


@pytest.mark.parametrize("two_sided", [False, True])
def test_leakage_makes_no_more_than_a_number_a_row_and_layer(two_sided: bool, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(leakage, "kernels", Unlaunched)
    query, key = torch.empty((2, 2, 8, 4096, 64), device="meta")
    gradients = torch.empty_like(query), torch.empty((1 + two_sided, *key.shape), device="meta")
    with LargestTensor() as largest:
        leakage.row_sums(query, key, torch.empty(2, 4096, device="meta"), two_sided, 0.1, *gradients)
    assert largest.numbers <= 2 * 8 * 4096


@pytest.mark.parametrize(("strategy", "most"), [("matrix_free", 2 * 8 * 4096), ("mean_map", 4096**2)])
def test_refinement_makes_no_map_or_one(strategy: str, most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(refinement, "kernels", Unlaunched)
    query, key = torch.empty((2, 2, 8, 4096, 64), device="meta")
    with LargestTensor() as largest:
        refinement.refine(query, key, torch.empty(2, 4096, 1, device="meta"), 4, 0.1, strategy)
    assert largest.numbers <= most
