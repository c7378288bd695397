"""The runner from end to end, on shapes that take seconds."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from matplotlib.image import imread

from lesionforge.benchmarks import __main__ as program
from lesionforge.benchmarks import machine
from lesionforge.benchmarks.benchmark import Benchmark
from lesionforge.benchmarks.kernels_off import without_kernels
from lesionforge.benchmarks.registry import BENCHMARKS
from lesionforge.kernels import seeded_normal
from lesionforge.kernels.map_refinement import OPS as REFINEMENT
from lesionforge.kernels.measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender
from lesionforge.kernels.norm_act_conv import OPS

# Whole processes that import torch and diffusers take too long for a test.
NAMES = [name for name in BENCHMARKS if name != "startup"]
QUICK = ["--quick", "--device", "cpu", "--threads", "1", "--repetitions", "2"]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> dict[str, int]:
    """A registry of one benchmark, `doubling`, one of whose contenders is wrong; how often each was run."""
    runs = {"right": 0, "best": 0, "wrong": 0}

    def counting(name: str, factor: float) -> Contender:
        def run() -> torch.Tensor:
            runs[name] += 1
            return torch.ones(3) * factor

        baseline = {"right": REFERENCE_METHOD, "best": BEST_TORCH}.get(name, "")
        return Contender(name, run, "a test", 1e-3, baseline, automatic=name == "wrong")

    contenders = (counting("right", 2.0), counting("best", 2.0), counting("wrong", 2.01))
    case = Case("doubling", "3 numbers", contenders, lambda: torch.full((3,), 2.0))
    benchmark = Benchmark("doubling", "a test", (0,), (0,), lambda shape, device: case)
    monkeypatch.setattr(program, "BENCHMARKS", {"doubling": benchmark})
    return runs


def test_every_benchmark_goes_through_to_its_results(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    before = torch.get_num_threads()
    assert program.main([*NAMES, *QUICK, "--json", "--output", str(tmp_path)]) == 0
    assert torch.get_num_threads() == before
    printed = json.loads(capsys.readouterr().out)
    assert printed == json.loads((tmp_path / "results.json").read_text())
    assert printed["machine"]["torch"] == torch.__version__
    rows = printed["rows"]
    assert {row["benchmark"] for row in rows} == set(NAMES)
    for row in rows:
        assert row["threads"] == 1 and row["turns"] in (1, 2)
        assert 0 < row["fastest"] <= row["seconds"] <= row["slowest"]
        assert (row["vs_best_torch"] is None) == (row["baseline"] == BEST_TORCH)
    assert imread(tmp_path / "results.png").std() > 0.01

    assert program.main(["--markdown", "--output", str(tmp_path)]) == 0
    table = [line for line in capsys.readouterr().out.splitlines() if line.startswith("| `")]
    assert len(table) == len({(row["op"], row["shape"]) for row in rows})
    assert all(line.count("|") == 8 and line.endswith("| not measured yet |") for line in table)


def test_nothing_is_timed_where_contenders_disagree(
    counted: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert program.main([*QUICK, "--output", str(tmp_path)]) == 1
    complaint = capsys.readouterr().err
    assert "disagree and are not timed: doubling, 3 numbers: wrong differs by 0.005, 0.001 is tolerated" in complaint
    assert counted == {"right": 1, "best": 1, "wrong": 1}
    assert not list(tmp_path.iterdir())


def test_threads_that_spin_are_warned_of(
    counted: dict[str, int], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for policy, warned in (("active", True), ("PASSIVE", False)):
        monkeypatch.setenv("OMP_WAIT_POLICY", policy)
        program.main([*QUICK, "--output", str(tmp_path)])
        assert ("OMP_WAIT_POLICY is not passive" in capsys.readouterr().err) == warned


def test_results_of_a_gpu_fill_their_column(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    def row(contender: str, baseline: str, seconds: float, device: str, threads: int, **ratios: float) -> dict:
        place = {"benchmark": "sampling", "op": "doubling", "shape": "3 numbers", "device": device, "threads": threads}
        faster = {"vs_reference_method": None, "vs_best_torch": None, **ratios}
        automatic = contender in ("cpu", "cuda")
        found = {"contender": contender, "baseline": baseline, "seconds": seconds, "automatic": automatic}
        return {**place, **found, **faster}

    for folder, device, ours, threads in (("cpu", "cpu", "cpu", 1), ("gpu", "cuda", "cuda", 16)):
        rows = [
            row("loop", REFERENCE_METHOD, 1.2, device, threads, vs_best_torch=0.5),
            row("slow torch", BEST_TORCH, 0.8, device, threads, vs_reference_method=1.5),
            row("torch", BEST_TORCH, 0.6, device, threads, vs_reference_method=2.0),
            row("triton", "", 0.24, device, threads, vs_reference_method=5.0, vs_best_torch=2.5),
            row(ours, "", 0.12, device, threads, vs_reference_method=10.0, vs_best_torch=5.0),
        ]
        (tmp_path / folder).mkdir()
        (tmp_path / folder / "results.json").write_text(json.dumps({"machine": machine.describe(), "rows": rows}))
    assert program.main(["--markdown", "--output", str(tmp_path / "cpu"), "--gpu-results", str(tmp_path / "gpu")]) == 0
    line = capsys.readouterr().out.splitlines()[-1]
    on_gpu = "triton 240 ms, 5x and 2.5x; cuda* 120 ms, 10x and 5x"
    assert line == f"| `doubling` 3 numbers | loop 1.2 s | torch 600 ms | cpu 120 ms | 10x | 5x | {on_gpu} |"


def test_the_list_names_benchmarks_shapes_and_contenders(capsys: pytest.CaptureFixture[str]) -> None:
    assert program.main(["--list"]) == 0
    listed = capsys.readouterr().out
    for words in (*BENCHMARKS, "tokens=9216", "OpenCV: map by map", "materialised: every map, float32, reference"):
        assert words in listed


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["sleeping"], "there is no benchmark 'sleeping'; there are startup, seeded_noise"),
        (["--threads", "0"], "--threads: invalid positive value: '0'"),
        (["--markdown"], "results.json; run the benchmarks first"),
    ],
)
def test_mistakes_are_told(
    arguments: list[str], words: str, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    with pytest.raises(SystemExit) as end:
        program.main([*arguments, "--output", str(tmp_path)])
    assert end.value.code == 2
    assert words in capsys.readouterr().err


def test_the_machine_is_described() -> None:
    found = machine.describe()
    assert found["cores"] >= 1 and found["processor"] and found["date"].count("-") == 2
    assert machine.in_words({"gpu": None, "wait_policy": "passive", "load": 0.5}) == "wait policy passive, load 0.5"


def test_kernels_are_off_where_the_benchmark_says_so() -> None:
    chosen = without_kernels(lambda: (OPS[0].choose("auto").name, REFINEMENT[0].choose("cpu").name))
    assert chosen() == ("reference", "torch")
    noise = without_kernels(lambda: seeded_normal([1, 2], (3,)))()
    assert noise.equal(seeded_normal([1, 2], (3,), backend="reference"))
