"""The native passes under the sanitizers for addresses and undefined behaviour."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "kernels" / "csrc"
PROGRAM = Path(__file__).with_name("norm_act_conv2d_fuzz.cpp")
SANITIZE = ["-std=c++20", "-O1", "-g", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]


def test_no_address_and_no_behaviour_is_out_of_bounds(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    probe = tmp_path / "probe.cpp"
    probe.write_text("int main() {}\n")
    if subprocess.run([compiler, *SANITIZE, probe, "-o", tmp_path / "probe"], capture_output=True).returncode:
        pytest.skip(f"{compiler} has no sanitizers")
    source = SOURCES / "norm_act_conv2d.cpp"
    subprocess.run([compiler, *SANITIZE, f"-I{SOURCES}", PROGRAM, source, "-o", tmp_path / "fuzz"], check=True)
    done = subprocess.run([tmp_path / "fuzz"], capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": ""})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 32
