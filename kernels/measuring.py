"""How implementations are measured against each other: first that they agree, then how fast they are, in turns.

A case holds its inputs and all that make the same result from them: the *reference method* (what the papers' released
code does), the *best torch* (the best that plain PyTorch can do), and the backends of lesionforge's own op. The cases
of an op stand in the `benchmark.py` of its folder; `lesionforge kernels --bench` and `benchmarks/` time them.
"""

from __future__ import annotations

import math
import statistics
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from functools import cached_property, partial
from typing import TYPE_CHECKING, Any, NamedTuple

from .dispatch import Op

if TYPE_CHECKING:
    from torch import Tensor

REFERENCE_METHOD = "reference method"
BEST_TORCH = "best torch"
PLAIN_TORCH = ("reference", "torch")  # backends that are plain torch
SLOW_S = 10.0


class Disagreement(AssertionError):
    """Contenders of a case make other results than its truth; the message names them. Nothing may be timed."""


@dataclass(frozen=True)
class Contender:
    """One way to the result of a case.

    Attributes:
        name: short; a backend's own name.
        run: makes the result, a tensor or several, from the inputs it holds.
        does: what it is, in a few words.
        tolerance: largest difference from the truth that still counts as agreement; infinity where the numbers are
            others by nature, as another generator's noise.
        baseline: REFERENCE_METHOD, BEST_TORCH, or "" for none. Of several in plain torch the fastest is the best.
        automatic: True for what a user of lesionforge gets unasked.
    """

    name: str
    run: Callable[[], Any]
    does: str
    tolerance: float = 0.0
    baseline: str = ""
    automatic: bool = False


def relative_difference(made: Any, truth: Any) -> float:
    """Largest absolute difference of any tensor, relative to the largest magnitude of its truth.

    Raises ValueError if the shapes differ. A NaN that the truth lacks makes the difference NaN.
    """
    worst = 0.0
    for one, other in zip(_as_tensors(made), _as_tensors(truth), strict=True):
        if one.shape != other.shape:
            raise ValueError(f"its result is {tuple(one.shape)}, not {tuple(other.shape)}")
        if other.numel():
            one, other = one.detach().double(), other.detach().double().to(one.device)
            difference = float((one - other).abs().max() / other.abs().max().clamp(min=1e-30))
            worst = difference if difference != difference else max(worst, difference)
    return worst


class Memory(NamedTuple):
    """Bytes that one run takes beside its inputs: saved for backward at once, and in all (None if nobody can tell)."""

    saved_bytes: int
    peak_bytes: int | None


class Trial(NamedTuple):
    """The run by which a contender is checked: its difference from the truth, and its memory where that is measured."""

    difference: float
    memory: Memory | None


@dataclass(frozen=True)
class Case:
    """Contenders on the same inputs.

    Attributes:
        op: the op, or what else is measured.
        shape: the inputs' sizes and settings, in words.
        contenders: with those of both baselines.
        truth: makes the result that all are compared with.
        device: "cpu" or "cuda".
        difference: of (result, truth), compared with each contender's tolerance.
        memory: of (run), makes its result and measures its memory; None where that is left to CUDA's allocator.
    """

    op: str
    shape: str
    contenders: tuple[Contender, ...]
    truth: Callable[[], Any]
    device: str = "cpu"
    difference: Callable[[Any, Any], float] = relative_difference
    memory: Callable[[Callable[[], Any]], tuple[Any, Memory]] | None = None

    @cached_property
    def _expected(self) -> Any:
        return self.truth()

    def check(self) -> dict[str, Trial]:
        """Return each contender's trial, by name; run once they are warm, too.

        Raises Disagreement if one differs from the truth by more than its tolerance.
        """
        truth, found, wrong = self._expected, {}, []
        for contender in self.contenders:
            made, memory = (contender.run(), None) if self.memory is None else self.memory(contender.run)
            try:
                difference = self.difference(made, truth)
            except ValueError as error:
                wrong.append(f"{contender.name}: {error}")
                continue
            found[contender.name] = Trial(difference, memory)
            # Not the other way round: a difference of NaN must not pass.
            if not difference <= contender.tolerance:
                wrong.append(f"{contender.name} differs by {difference:.3g}, {contender.tolerance:.3g} is tolerated")
        if wrong:
            raise Disagreement(f"{self.op}, {self.shape}: {'; '.join(wrong)}")
        return found


@dataclass(frozen=True)
class Timing:
    """Times of one contender, and on CUDA the most memory that one run takes beside its inputs."""

    contender: Contender
    seconds: tuple[float, ...]
    peak_bytes: int | None = None

    @property
    def median(self) -> float:
        """Median in seconds."""
        return statistics.median(self.seconds)


def measure(case: Case, *, repetitions: int = 7, budget_s: float = math.inf) -> list[dict[str, Any]]:
    """Check a case, time it, and return a row for each contender.

    op, shape, device, threads (of torch), contender, does, baseline, automatic; seconds, fastest, slowest (median and
    extremes of `turns`); difference from the truth (None where the numbers are others by nature); peak_bytes and
    saved_bytes (for backward), None where not measured; vs_reference_method and vs_best_torch, how many times faster,
    None for those baselines themselves.
    Raises Disagreement before anything is timed.
    """
    import torch

    trials = case.check()
    timings = take_turns(case, repetitions=repetitions, budget_s=budget_s)
    as_released, at_best = times_faster(timings, REFERENCE_METHOD), times_faster(timings, BEST_TORCH)
    rows = []
    for timing in timings:
        contender, name = timing.contender, timing.contender.name
        difference, memory = trials[name]
        rows.append(
            {
                "op": case.op,
                "shape": case.shape,
                "device": case.device,
                "threads": torch.get_num_threads(),
                "contender": name,
                "does": contender.does,
                "baseline": contender.baseline,
                "automatic": contender.automatic,
                "seconds": timing.median,
                "fastest": min(timing.seconds),
                "slowest": max(timing.seconds),
                "turns": len(timing.seconds),
                "difference": difference if math.isfinite(contender.tolerance) else None,
                "peak_bytes": memory.peak_bytes if memory and timing.peak_bytes is None else timing.peak_bytes,
                "saved_bytes": memory and memory.saved_bytes,
                "vs_reference_method": as_released[name],
                "vs_best_torch": at_best[name],
            }
        )
    return rows


def take_turns(case: Case, *, repetitions: int = 7, budget_s: float = math.inf) -> list[Timing]:
    """Time the contenders of a checked case, which take turns so that a machine's moods strike all alike.

    A contender slower than SLOW_S is timed once. Rounds end at `repetitions`, or from the third on when `budget_s` is
    spent.
    """
    began = time.perf_counter()
    seconds = {contender.name: [_once(contender, case.device)] for contender in case.contenders}
    quick = [contender for contender in case.contenders if seconds[contender.name][0] <= SLOW_S]
    for round_number in range(2, repetitions + 1):
        if round_number > 3 and time.perf_counter() - began > budget_s:
            break
        for contender in quick:
            seconds[contender.name].append(_once(contender, case.device))
    return [Timing(one, tuple(seconds[one.name]), _peak_bytes(one, case.device)) for one in case.contenders]


def times_faster(timings: Sequence[Timing], baseline: str) -> dict[str, float | None]:
    """How many times faster than a baseline each contender is, by name; None for the contenders of that baseline."""
    compared = min((timing.median for timing in timings if timing.contender.baseline == baseline), default=None)
    return {
        timing.contender.name: None
        if compared is None or timing.contender.baseline == baseline
        else compared / timing.median
        for timing in timings
    }


def backends_of(
    op: Op[..., Any], call: Callable[..., Any], *tensors: Tensor, tolerance: float, but: Iterable[str] = ()
) -> tuple[Contender, ...]:
    """A contender for each backend of `op` that can serve `tensors`; `call(backend=name)` makes the result."""
    automatic = op.choose("auto", *tensors).name
    return tuple(
        Contender(
            name,
            partial(call, backend=name),
            "lesionforge in plain torch" if name in PLAIN_TORCH else f"lesionforge, backend {name}",
            tolerance,
            BEST_TORCH if name in PLAIN_TORCH else "",
            name == automatic,
        )
        for name, backend in op.backends.items()
        if name not in but and backend.why_not(*tensors) is None
    )


def _once(contender: Contender, device: str) -> float:
    _synchronize(device)
    started = time.perf_counter()
    contender.run()
    _synchronize(device)
    return time.perf_counter() - started


def _synchronize(device: str) -> None:
    if device == "cuda":
        import torch

        torch.cuda.synchronize()


def _peak_bytes(contender: Contender, device: str) -> int | None:
    if device != "cuda":
        return None
    import torch

    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    contender.run()
    torch.cuda.synchronize()
    return torch.cuda.max_memory_allocated() - before


def _as_tensors(values: Any) -> list[Tensor]:
    import torch

    return [values] if isinstance(values, torch.Tensor) else list(values)
