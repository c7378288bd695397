"""The CUDA kernels on the host under sanitizers: addresses, undefined behaviour, and missing barriers as data races."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest

HERE = Path(__file__).parent
SOURCES = HERE.parents[1] / "kernels" / "csrc"
OPTIONS = ["-std=c++20", "-O1", "-g1", "-ffp-contract=off", "-fno-sanitize-recover=all", "-pthread"]
ENVIRONMENT = {**os.environ, "LD_PRELOAD": "", "TSAN_OPTIONS": "halt_on_error=1"}


def sanitizing_compiler(folder: Path, sanitizers: str) -> str:
    """A compiler that links the sanitizers and runs what it made, or a skipped test."""
    compiler = shutil.which(os.environ.get("CXX", "g++"))
    if compiler is None:
        pytest.skip("no C++ compiler")
    probe = folder / "probe.cpp"
    probe.write_text("int main() {}\n")
    made = subprocess.run([compiler, f"-fsanitize={sanitizers}", probe, "-o", folder / "probe"], capture_output=True)
    if made.returncode or subprocess.run([folder / "probe"], capture_output=True, env=ENVIRONMENT).returncode:
        pytest.skip(f"{compiler} has no sanitizers for {sanitizers}")
    return compiler


def built(folder: Path, sanitizers: str, *sources: Path) -> Path:
    compiler = sanitizing_compiler(folder, sanitizers)
    command = [compiler, *OPTIONS, f"-fsanitize={sanitizers}", f"-I{HERE / 'cuda_on_host'}", *sources]
    subprocess.run([*command, "-o", folder / "program"], check=True)
    return folder / "program"


@pytest.mark.parametrize("sanitizers", ["address,undefined", "thread"])
def test_kernels_are_clean_and_agree_with_the_native_ones(tmp_path: Path, sanitizers: str) -> None:
    parts = [SOURCES / f"{name}.cpp" for name in ("mask_extraction", "bit_image", "level_passes", "seeded_noise")]
    program = built(tmp_path, sanitizers, HERE / "cuda_fuzz.cpp", *parts)
    done = subprocess.run([program, "6"], capture_output=True, text=True, env=ENVIRONMENT)
    assert done.returncode == 0, done.stderr
    assert int(done.stdout) > 0


RACE = """
#include <cuda_runtime.h>
// Neighbours exchange values through shared memory; the barrier is what the test leaves out.
__global__ void rotate(int* values, bool barrier) {
    __shared__ int all[64];
    all[threadIdx.x] = values[threadIdx.x];
    if (barrier) __syncthreads();
    values[threadIdx.x] = all[(threadIdx.x + 1) % 64];
}
// Blocks run at once: none may read what another writes.
__global__ void shift(int* values, bool apart) {
    values[blockIdx.x * 64 + threadIdx.x] = values[(blockIdx.x + (apart ? 0 : 1)) % 2 * 64 + threadIdx.x] + 1;
}
int main(int, char** arguments) {
    int values[128] = {};
    cudaLaunchConfig_t config{};
    config.gridDim = dim3{arguments[1][0] == 's' ? 2u : 1u};
    config.blockDim = dim3{64};
    cudaLaunchKernelEx(&config, arguments[1][0] == 's' ? shift : rotate, values, arguments[2][0] == 'y');
}
"""


@pytest.fixture(scope="module")
def racing(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("race")
    (folder / "race.cpp").write_text(RACE)
    return built(folder, "thread", folder / "race.cpp")


@pytest.mark.parametrize("kernel", ["rotate", "shift"])
def test_a_race_would_be_seen(racing: Path, kernel: str) -> None:
    right = subprocess.run([racing, kernel, "yes"], capture_output=True, text=True, env=ENVIRONMENT)
    assert right.returncode == 0, right.stderr
    wrong = subprocess.run([racing, kernel, "no"], capture_output=True, text=True, env=ENVIRONMENT)
    assert wrong.returncode != 0
    assert "data race" in wrong.stderr and f"in {kernel}" in wrong.stderr
