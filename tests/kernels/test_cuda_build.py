"""The library of CUDA kernels: built where nvcc is, without a GPU; and what a build without nvcc does."""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from lesionforge.kernels import cuda

HERE = Path(__file__).parent
SOURCE = HERE.parents[1] / "kernels" / "csrc" / "cuda"
needs_nvcc = pytest.mark.skipif(not (shutil.which("nvcc") and shutil.which("cmake")), reason="no nvcc or no CMake")


@pytest.fixture(scope="module")
def build(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, dict]:
    folder = tmp_path_factory.mktemp("cuda")
    command = [sys.executable, HERE / "compile_cuda_kernels.py", folder]
    ran = subprocess.run(command, check=True, capture_output=True, text=True)
    return folder / cuda.NAME, json.loads(ran.stdout)


@needs_nvcc
def test_the_library_has_every_function_and_shows_no_other(build: tuple[Path, dict]) -> None:
    library, _ = build
    cuda.declared(ctypes.CDLL(str(library)))
    listed = subprocess.run(["nm", "-D", "--defined-only", library], check=True, capture_output=True, text=True).stdout
    functions = {*cuda._LAUNCHES, *cuda._WORKSPACES, "error_message"}
    assert {line.split()[-1] for line in listed.splitlines()} == functions


@needs_nvcc
def test_registers_and_spills_stay_within_the_recorded_figures(build: tuple[Path, dict]) -> None:
    recorded, found = json.loads((HERE / "cuda_registers.json").read_text()), build[1]
    assert set(found["kernels"]) == set(recorded["kernels"])
    assert not any(used["spilled_bytes"] for used in found["kernels"].values())
    if found["nvcc"] != recorded["nvcc"]:
        pytest.skip(f"registers are of nvcc {recorded['nvcc']}, this is {found['nvcc']}; it spilled nothing")
    for name, used in found["kernels"].items():
        assert used["registers"] <= recorded["kernels"][name]["registers"], name


@needs_nvcc
def test_machine_code_for_both_generations_and_a_portable_form_without_fused_arithmetic(
    build: tuple[Path, dict],
) -> None:
    triton = pytest.importorskip("triton")
    cuobjdump = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
    if not cuobjdump.exists():
        pytest.skip("this Triton brings no cuobjdump")
    listed = subprocess.run([cuobjdump, "-lelf", "-lptx", build[0]], check=True, capture_output=True, text=True).stdout
    assert "sm_80.cubin" in listed and "sm_90.cubin" in listed and "sm_90.ptx" in listed
    code = subprocess.run([cuobjdump, "-ptx", build[0]], check=True, capture_output=True, text=True).stdout
    # With these the bits would not be those of the other backends.
    assert "div.rn.f32" in code and "sqrt.rn.f64" in code
    assert not [word for word in ("fma.rn.f", ".approx", ".ftz") if word in code]


@pytest.mark.skipif(shutil.which("cmake") is None, reason="no CMake")
def test_without_nvcc_the_build_says_so_and_succeeds(tmp_path: Path) -> None:
    compiler = tmp_path / "nvcc"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    environment = {**os.environ, "CUDACXX": str(compiler)}
    configure = ["cmake", "-S", SOURCE, "-B", tmp_path / "build"]
    told = subprocess.run(configure, env=environment, check=True, capture_output=True, text=True).stdout
    assert "No CUDA kernels: no working nvcc" in told
    subprocess.run(["cmake", "--build", tmp_path / "build"], check=True, capture_output=True)
    install = ["cmake", "--install", tmp_path / "build", "--prefix", tmp_path / "made"]
    subprocess.run(install, check=True, capture_output=True)
    assert not (tmp_path / "made" / cuda.NAME).exists()
