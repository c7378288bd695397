"""Measure lesionforge against what the papers' released code does, and against the best that plain PyTorch can do.

Contenders of a case must agree before they are timed, and take turns; medians are printed with their extremes. Compare
numbers of one run only. Results go to results.json and results.png in the folder of --output.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
from rich.console import Console

from lesionforge.kernels.measuring import Disagreement

from . import machine, plot, tables
from .benchmark import Benchmark
from .registry import BENCHMARKS
from .runner import run

HERE = Path(__file__).parent
RESULTS, PLOT = "results.json", "results.png"
PIPE_WIDTH = 160


def main(arguments: list[str] | None = None) -> int:
    """Run the command line; return its exit code."""
    given = parser().parse_args(arguments)
    if given.list:
        return list_benchmarks()
    if given.markdown:
        return print_markdown(given.output, given.gpu_results, given.names)
    if os.environ.get("OMP_WAIT_POLICY", "").lower() != "passive":
        print("warning: OMP_WAIT_POLICY is not passive: threads that spin distort all times", file=sys.stderr)
    results = {"machine": machine.describe(), "rows": []}
    # With --json standard output holds the document alone.
    console = Console(stderr=given.json, highlight=False, width=None if sys.stdout.isatty() else PIPE_WIDTH)
    console.print(machine.in_words(results["machine"]), soft_wrap=True)
    given.output.mkdir(parents=True, exist_ok=True)
    try:
        for rows in measured(given):
            results["rows"] += rows
            console.print(tables.of_case(rows))
            # Each time, since all of it takes hours.
            (given.output / RESULTS).write_text(json.dumps(results, indent=1) + "\n")
    except Disagreement as error:
        print(f"error: contenders disagree and are not timed: {error}", file=sys.stderr)
        return 1
    if results["rows"]:
        plot.save(results["rows"], machine.in_words(results["machine"]), given.output / PLOT)
        console.print(f"written to {given.output / RESULTS} and {given.output / PLOT}", soft_wrap=True)
    if given.json:
        print(json.dumps(results, indent=1))
    return 0


def parser() -> argparse.ArgumentParser:
    made = argparse.ArgumentParser(prog="python -m lesionforge.benchmarks", description=__doc__)
    made.add_argument("names", nargs="*", metavar="NAME", help="benchmarks to run (all): " + ", ".join(BENCHMARKS))
    made.add_argument("--list", action="store_true", help="list benchmarks, shapes and contenders")
    made.add_argument("--quick", action="store_true", help="small shapes: see that all of it works")
    made.add_argument("--device", choices=("cpu", "cuda"), default="cuda" if torch.cuda.is_available() else "cpu")
    made.add_argument("--threads", type=positive, nargs="+", metavar="N", help="(1 2, where one suffices 2)")
    made.add_argument("--repetitions", type=positive, default=7, metavar="N", help="turns of each contender (7)")
    made.add_argument("--output", type=Path, default=HERE / "results", metavar="DIR", help="(benchmarks/results)")
    made.add_argument("--json", action="store_true", help="print the results as JSON on standard output")
    made.add_argument("--markdown", action="store_true", help="print the results of --output as in docs/, and end")
    made.add_argument("--gpu-results", type=Path, metavar="DIR", help="for --markdown: results of a GPU")
    return made


def positive(text: str) -> int:
    value = int(text)
    if value < 1:
        raise ValueError
    return value


def chosen(names: Sequence[str]) -> list[Benchmark[Any]]:
    """The benchmarks of these names, or all. Exits with a line if there is no such name."""
    unknown = [name for name in names if name not in BENCHMARKS]
    if unknown:
        parser().error(f"there is no benchmark {unknown[0]!r}; there are {', '.join(BENCHMARKS)}")
    return [BENCHMARKS[name] for name in names or BENCHMARKS]


def measured(given: argparse.Namespace) -> Iterator[list[dict[str, Any]]]:
    threads = given.threads if given.device == "cpu" else [torch.get_num_threads()]
    settings = {"device": given.device, "repetitions": given.repetitions, "quick": given.quick}
    return run(chosen(given.names), threads=threads, **settings)


def list_benchmarks() -> int:
    for benchmark in BENCHMARKS.values():
        print(f"{benchmark.name}: {benchmark.measures}{f'; aim: {benchmark.aim}' * bool(benchmark.aim)}")
        for shape in benchmark.shapes + benchmark.on_gpu:
            print(f"    {shape}{' (on a GPU)' * (shape in benchmark.on_gpu)}")
        for contender in benchmark.case(benchmark.quick[0], "cpu").contenders:
            print(f"  {contender.name}: {', '.join(part for part in (contender.does, contender.baseline) if part)}")
    return 0


def print_markdown(output: Path, gpu_results: Path | None, names: Sequence[str]) -> int:
    wanted = {benchmark.name for benchmark in chosen(names)}
    results = stored(output)
    rows = results["rows"] + ([] if gpu_results is None else stored(gpu_results)["rows"])
    print(tables.markdown([row for row in rows if row["benchmark"] in wanted], results["machine"]))
    return 0


def stored(folder: Path) -> dict[str, Any]:
    """The results in a folder. Exits with a line if there are none."""
    path = folder / RESULTS
    if not path.is_file():
        parser().error(f"there is no {path}; run the benchmarks first")
    return json.loads(path.read_text())


if __name__ == "__main__":
    sys.exit(main())
