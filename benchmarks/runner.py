"""Goes through benchmarks, devices and thread counts: contenders are checked, then take turns."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch

from lesionforge.kernels.measuring import measure

from .benchmark import Benchmark

Row = dict[str, Any]


def run(
    benchmarks: Sequence[Benchmark[Any]], *, device: str, threads: Sequence[int] | None, repetitions: int, quick: bool
) -> Iterator[list[Row]]:
    """Yield the rows of each case as they come: those of `measure`, with the benchmark's name and aim.

    device: "cpu" or "cuda"; benchmarks that cannot run there are passed over. threads: of torch, in turn; None leaves
    them to each benchmark.
    Raises Disagreement where contenders make other results than they should; that case is not timed.
    """
    before = torch.get_num_threads()
    try:
        for benchmark in benchmarks:
            for shape in benchmark.of(device, quick=quick):
                case = benchmark.case(shape, device)
                for count in benchmark.threads if threads is None else threads:
                    torch.set_num_threads(count)
                    rows = measure(case, repetitions=repetitions, budget_s=benchmark.budget_s)
                    yield [{"benchmark": benchmark.name, "aim": benchmark.aim, **row} for row in rows]
    finally:
        torch.set_num_threads(before)
