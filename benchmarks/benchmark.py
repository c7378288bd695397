"""What a benchmark is: shapes, and for each the case whose contenders are compared and then timed."""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from lesionforge.kernels.measuring import Case

S = TypeVar("S")


@dataclass(frozen=True)
class Benchmark(Generic[S]):
    """One entry of the registry.

    Attributes:
        name: what the command line calls it.
        measures: one line for lists.
        shapes: what `make bench` measures; each is handed to `case`.
        quick: small shapes that take seconds, all paths included.
        on_gpu: shapes that only a GPU measures beside the others, since a CPU has neither the memory nor the time.
        threads: of torch on a CPU, in turn, unless the command line names others.
        budget_s: seconds after which no further round of turns begins, from the third on.
        aim: what is to be reached, in a few words.
        case: (shape, device) -> inputs, contenders, and the tolerances they must keep before they are timed.
        ops: public functions of lesionforge.kernels that it measures.
        devices: where it can run.
    """

    name: str
    measures: str
    shapes: tuple[S, ...]
    quick: tuple[S, ...]
    case: Callable[[S, str], Case]
    ops: tuple[str, ...] = ()
    devices: tuple[str, ...] = ("cpu", "cuda")
    on_gpu: tuple[S, ...] = ()
    threads: tuple[int, ...] = (1, 2)
    budget_s: float = math.inf
    aim: str = ""

    def of(self, device: str, *, quick: bool) -> tuple[S, ...]:
        """The shapes to measure on a device; none where the benchmark cannot run."""
        if device not in self.devices:
            return ()
        if quick:
            return self.quick
        return self.shapes + (self.on_gpu if device == "cuda" else ())
