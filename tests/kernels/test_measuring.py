"""What may be timed, how turns are taken, and what is compared with what."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
import torch

from lesionforge.kernels import measuring
from lesionforge.kernels.dispatch import Backend, Op
from lesionforge.kernels.measuring import (
    BEST_TORCH,
    REFERENCE_METHOD,
    Case,
    Contender,
    Disagreement,
    Memory,
    Timing,
    backends_of,
    measure,
    relative_difference,
    take_turns,
    times_faster,
)


class Clock:
    """Time that passes only when a contender works."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = 0.0
        self.order = ""
        monkeypatch.setattr(measuring.time, "perf_counter", lambda: self.now)

    def contender(self, name: str, seconds: float, baseline: str = "") -> Contender:
        def run() -> torch.Tensor:
            self.now += seconds
            self.order += name
            return torch.zeros(1)

        return Contender(name, run, "a test", baseline=baseline)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    return Clock(monkeypatch)


def case(*contenders: Contender, truth: float = 0.0) -> Case:
    return Case("op", "one number", contenders, lambda: torch.full((1,), truth))


def contender(value: float, tolerance: float) -> Contender:
    return Contender(f"{value}", lambda: torch.full((1,), value), "a test", tolerance)


def test_the_difference_is_relative_to_the_largest_value_of_each_tensor() -> None:
    truth = (torch.tensor([100.0, 1.0]), torch.tensor([1e-3]))
    made = (torch.tensor([101.0, 1.0]), torch.tensor([1.2e-3]))
    assert relative_difference(made, truth) == pytest.approx(0.2, rel=1e-5)
    assert relative_difference(torch.zeros(0), torch.zeros(0)) == 0.0


def test_not_a_number_never_passes() -> None:
    assert math.isnan(relative_difference(torch.tensor([math.nan]), torch.tensor([1.0])))
    with pytest.raises(Disagreement, match=r"nan differs by nan, inf is tolerated"):
        case(contender(math.nan, math.inf), truth=1.0).check()


def test_other_shapes_and_counts_are_disagreements() -> None:
    with pytest.raises(Disagreement, match=r"its result is \(2,\), not \(1,\)"):
        case(Contender("broad", lambda: torch.zeros(2), "a test", math.inf)).check()
    with pytest.raises(Disagreement, match="several: "):
        case(Contender("several", lambda: (torch.zeros(1), torch.zeros(1)), "a test")).check()


def test_all_that_disagree_are_named() -> None:
    with pytest.raises(Disagreement) as told:
        case(contender(1.0, 0.0), contender(1.5, 0.4), contender(2.0, 1.0), contender(3.0, 1.0), truth=1.0).check()
    assert str(told.value) == (
        "op, one number: 1.5 differs by 0.5, 0.4 is tolerated; 3.0 differs by 2, 1 is tolerated"
    )


def test_contenders_take_turns(clock: Clock) -> None:
    timings = take_turns(case(clock.contender("a", 1.0), clock.contender("b", 2.0)), repetitions=3)
    assert clock.order == "ababab"
    assert [timing.seconds for timing in timings] == [(1.0, 1.0, 1.0), (2.0, 2.0, 2.0)]


def test_a_slow_contender_is_timed_once(clock: Clock) -> None:
    slow = clock.contender("s", measuring.SLOW_S + 1)
    timings = take_turns(case(clock.contender("a", 1.0), slow), repetitions=4)
    assert clock.order == "asaaa"
    assert [len(timing.seconds) for timing in timings] == [4, 1]


def test_a_budget_ends_the_rounds_after_the_third(clock: Clock) -> None:
    for budget, turns in ((0.0, 3), (4.5, 5), (math.inf, 7)):
        (timing,) = take_turns(case(clock.contender("a", 1.0)), budget_s=budget)
        assert len(timing.seconds) == turns


def test_the_fastest_of_a_baseline_is_what_counts() -> None:
    def timing(name: str, baseline: str, *seconds: float) -> Timing:
        return Timing(Contender(name, lambda: None, "a test", baseline=baseline), seconds)

    timings = [
        timing("released", REFERENCE_METHOD, 8.0, 9.0, 100.0),
        timing("loop", BEST_TORCH, 6.0),
        timing("fused", BEST_TORCH, 3.0),
        timing("ours", "", 1.5),
    ]
    assert times_faster(timings, REFERENCE_METHOD) == {"released": None, "loop": 1.5, "fused": 3.0, "ours": 6.0}
    assert times_faster(timings, BEST_TORCH)["ours"] == 2.0
    assert times_faster(timings[-1:], BEST_TORCH) == {"ours": None}


def test_nothing_is_timed_before_all_agree(clock: Clock) -> None:
    wrong = Contender("wrong", lambda: torch.ones(1), "a test")
    with pytest.raises(Disagreement):
        measure(case(clock.contender("a", 1.0), wrong))
    assert clock.order == "a"


def test_rows_tell_all(clock: Clock) -> None:
    first, second = measure(
        case(clock.contender("a", 2.0, REFERENCE_METHOD), clock.contender("b", 1.0)), repetitions=2
    )
    assert clock.order == "ab" + "abab"
    assert (first["seconds"], first["turns"], first["vs_reference_method"]) == (2.0, 2, None)
    assert (second["vs_reference_method"], second["vs_best_torch"], second["difference"]) == (2.0, None, 0.0)


def test_memory_is_told_where_a_case_measures_it(clock: Clock) -> None:
    def memory(run: Callable[[], Any]) -> tuple[Any, Memory]:
        return run(), Memory(30, 70)

    plain = case(clock.contender("a", 1.0))
    (row,) = measure(plain, repetitions=1)
    assert (row["saved_bytes"], row["peak_bytes"]) == (None, None)
    (row,) = measure(replace(plain, memory=memory), repetitions=1)
    assert (row["saved_bytes"], row["peak_bytes"]) == (30, 70)
    assert clock.order == "aa" * 2


def test_backends_become_contenders_if_they_can_serve() -> None:
    def small_only(*tensors: torch.Tensor) -> str | None:
        return next(("too large" for tensor in tensors if len(tensor) > 2), None)

    def unmeasured(*tensors: torch.Tensor) -> str | None:
        return "nobody has measured it"

    plain = Backend("reference", torch.clone, lambda *tensors: None)
    op = Op("op", Backend("new", torch.clone, small_only, unmeasured), Backend("fast", torch.clone, small_only), plain)

    def call(backend: str) -> str:
        return backend

    made = backends_of(op, call, torch.zeros(2), tolerance=0.5)
    assert [(one.name, one.run(), one.baseline, one.automatic) for one in made] == [
        ("new", "new", "", False),
        ("fast", "fast", "", True),
        ("reference", "reference", BEST_TORCH, False),
    ]
    assert [one.name for one in backends_of(op, call, torch.zeros(3), tolerance=0.5)] == ["reference"]


def test_on_cuda_work_is_waited_for_and_its_memory_is_told(clock: Clock, monkeypatch: pytest.MonkeyPatch) -> None:
    queued: list[float] = []

    def synchronize() -> None:
        clock.now += sum(queued)
        queued.clear()

    def launch() -> torch.Tensor:
        queued.append(2.0)
        return torch.zeros(1)

    monkeypatch.setattr(torch.cuda, "synchronize", synchronize)
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda: 100)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 150)
    work = Contender("queued", launch, "a test")
    (row,) = measure(Case("op", "one number", (work,), lambda: torch.zeros(1), "cuda"), repetitions=2)
    assert (row["fastest"], row["slowest"], row["peak_bytes"]) == (2.0, 2.0, 50)
