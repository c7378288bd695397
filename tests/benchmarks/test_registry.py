"""Every operation is measured, against both baselines, and what is timed has been seen to agree."""

from __future__ import annotations

import pytest

from lesionforge import kernels
from lesionforge.benchmarks.benchmark import Benchmark
from lesionforge.benchmarks.registry import BENCHMARKS
from lesionforge.kernels.diagnostics import FOLDERS, import_module
from lesionforge.kernels.measuring import BEST_TORCH, REFERENCE_METHOD, Case

NO_OPERATIONS = {"BackendUnavailable", "stream_of"}


def baselines(case: Case) -> set[str]:
    return {contender.baseline for contender in case.contenders}


def test_every_operation_has_a_benchmark() -> None:
    measured = {op for benchmark in BENCHMARKS.values() for op in benchmark.ops}
    assert measured == set(kernels.__all__) - NO_OPERATIONS


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS.keys())
def test_every_benchmark_has_both_baselines_and_one_contender_that_users_get(benchmark: Benchmark) -> None:
    for shape in benchmark.quick:
        case = benchmark.case(shape, "cpu")
        names = [contender.name for contender in case.contenders]
        assert len(names) == len(set(names))
        assert {REFERENCE_METHOD, BEST_TORCH} <= baselines(case)
        assert sum(contender.automatic for contender in case.contenders) == 1
        assert all(contender.does for contender in case.contenders)
        assert not benchmark.ops or case.op in benchmark.ops


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=BENCHMARKS.keys())
def test_quick_shapes_are_others_and_of_the_same_kind(benchmark: Benchmark) -> None:
    assert {type(shape) for shape in benchmark.quick} <= {type(shape) for shape in benchmark.shapes}
    assert len(set(benchmark.shapes)) == len(benchmark.shapes)
    assert benchmark.devices[0] == "cpu"


def test_every_operation_of_every_folder_has_a_case_for_lesionforge_kernels() -> None:
    for name in FOLDERS:
        folder = import_module(f"lesionforge.kernels.{name}")
        cases = import_module(f"lesionforge.kernels.{name}.benchmark").diagnostic_cases("cpu")
        assert {case.op for case in cases} == {op.name for op in folder.OPS}
        for case in cases:
            assert {REFERENCE_METHOD, BEST_TORCH} <= baselines(case)


def test_the_reference_method_is_the_released_loss() -> None:
    """The loop over pixels, as released, and its vectorised reading make one loss and its gradients."""
    loss = BENCHMARKS["layout_loss"]
    found = loss.case(loss.quick[-1], "cpu").check()
    assert found["pixel loop"].difference < 1e-5 and found["materialised"].difference < 1e-5
