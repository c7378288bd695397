"""The native code under the sanitizers for addresses and undefined behaviour, on odd sizes and values."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "kernels" / "csrc"
PROGRAM = Path(__file__).with_name("mask_extraction_fuzz.cpp")
SANITIZE = ["-std=c++20", "-O1", "-g", "-fopenmp", "-ffp-contract=off", "-fsanitize=address,undefined"]


def sanitizing_compiler(folder: Path) -> str:
    """A compiler that links the sanitizers, or a skipped test."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    probe = folder / "probe.cpp"
    probe.write_text("int main() {}\n")
    if subprocess.run([compiler, *SANITIZE, probe, "-o", folder / "probe"], capture_output=True).returncode:
        pytest.skip(f"{compiler} has no sanitizers")
    return compiler


def test_no_address_and_no_behaviour_is_out_of_bounds(tmp_path: Path) -> None:
    compiler = sanitizing_compiler(tmp_path)
    parts = [SOURCES / f"{name}.cpp" for name in ("mask_extraction", "bit_image", "level_passes")]
    command = [compiler, *SANITIZE, "-fno-sanitize-recover=all", "-o", tmp_path / "fuzz", PROGRAM, *parts]
    subprocess.run(command, check=True)
    done = subprocess.run([tmp_path / "fuzz"], capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": ""})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0
