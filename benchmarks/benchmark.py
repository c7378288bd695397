"""What a benchmark is: shapes, and for each the case whose contenders are compared and then timed."""

from __future__ import annotations

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

    def of(self, *, quick: bool) -> tuple[S, ...]:
        """The shapes to measure."""
        return self.quick if quick else self.shapes
