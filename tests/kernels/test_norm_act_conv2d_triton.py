"""The Triton backends without a GPU: interpreted in a process of their own, and compiled ahead of time."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from lesionforge.kernels.norm_act_conv import _triton

HERE = Path(__file__)
INTERPRETED_TESTS = HERE.with_name("interpreted_norm_act_conv2d.py")


def environment(**changed: str) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("TRITON_", "PYTEST_"))}
    return {**kept, "TRITON_DEFAULT_FP_FUSION": "1", **changed}


def test_under_the_interpreter() -> None:
    # Triton decides when it is imported whether it interprets; other tests of this process may want it compiled.
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-c",
        HERE.parents[1] / "pytest.ini",
        INTERPRETED_TESTS,
        "-q",
        "-p",
        "no:cacheprovider",
    ]
    ran = subprocess.run(command, env=environment(TRITON_INTERPRET="1"), capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr
    assert "passed" in ran.stdout and "failed" not in ran.stdout


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="Triton's assembler comes for Linux")
def test_registers_and_spills_stay_within_the_recorded_figures() -> None:
    recorded = json.loads((HERE.parent / "norm_act_conv2d_registers.json").read_text())
    script = HERE.with_name("compile_norm_act_conv2d.py")
    ran = subprocess.run([sys.executable, script], env=environment(), check=True, capture_output=True, text=True)
    found = json.loads(ran.stdout)
    assert set(found["kernels"]) == set(recorded["kernels"])
    if found["triton"] != recorded["triton"]:
        pytest.skip(f"figures are of Triton {recorded['triton']}, this is {found['triton']}; it compiled all kernels")
    for name, used in found["kernels"].items():
        assert used["spilled_bytes"] <= recorded["kernels"][name]["spilled_bytes"], name
        assert used["registers"] <= recorded["kernels"][name]["registers"], name


@pytest.mark.skipif(torch.cuda.is_available(), reason="here Triton can serve")
def test_says_why_it_cannot_serve_here() -> None:
    assert "no CUDA device" in str(_triton.why_not())
