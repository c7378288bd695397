"""The native attention kernels under the sanitizers for addresses and undefined behaviour."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

SOURCES = Path(__file__).parents[2] / "kernels" / "csrc"
PROGRAM = Path(__file__).with_name("attention_fuzz.cpp")
SANITIZE = ["-std=c++20", "-O1", "-g", "-fopenmp", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"]
AVX512 = ["-mavx512f", "-mfma"]
AMX = [*AVX512, "-mavx512bw", "-mavx512dq", "-mavx512vl", "-mavx512bf16", "-mamx-tile", "-mamx-bf16"]
FLAGS = {"attention_avx2.cpp": ["-mavx2", "-mfma"], "attention_avx512.cpp": AVX512, "attention_amx.cpp": AMX}


def compiles(compiler: str, flags: list[str], folder: Path) -> bool:
    probe = folder / "probe.cpp"
    probe.write_text("int main() {}\n")
    return not subprocess.run([compiler, *flags, probe, "-o", folder / "probe"], capture_output=True).returncode


def test_no_address_and_no_behaviour_is_out_of_bounds(tmp_path: Path) -> None:
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    if not compiles(compiler, SANITIZE, tmp_path):
        pytest.skip(f"{compiler} has no sanitizers")
    x86 = compiles(compiler, [*SANITIZE, *AVX512], tmp_path)
    amx = os.name == "posix" and x86 and compiles(compiler, [*SANITIZE, *AMX], tmp_path)
    defined = ["-DLESIONFORGE_X86_KERNELS"] * x86 + ["-DLESIONFORGE_AMX_KERNELS"] * amx
    sources = ["attention.cpp", "attention_generic.cpp"]
    sources += ["attention_avx2.cpp", "attention_avx512.cpp"] * x86 + ["attention_amx.cpp"] * amx
    for source in sources:
        flags = [*SANITIZE, *defined, *FLAGS.get(source, [])]
        subprocess.run([compiler, *flags, "-c", SOURCES / source, "-o", tmp_path / f"{source}.o"], check=True)
    objects = [tmp_path / f"{source}.o" for source in sources]
    program = [compiler, *SANITIZE, *defined, f"-I{SOURCES}", PROGRAM, *objects, "-o", tmp_path / "fuzz"]
    subprocess.run(program, check=True)
    done = subprocess.run([tmp_path / "fuzz"], capture_output=True, text=True, env={**os.environ, "LD_PRELOAD": ""})
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) >= 12
