"""Compiles the CUDA kernels for GPUs that need not be here; prints registers, spills and shared memory as JSON.

python tests/kernels/compile_cuda_kernels.py FOLDER > tests/kernels/cuda_registers.json leaves the library in FOLDER.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

SOURCE = Path(__file__).parents[2] / "kernels" / "csrc" / "cuda"
ENTRY = re.compile(r"Compiling entry function '(\w+)' for '(sm_\d+)'.*?(?=Compiling entry function|\Z)", re.DOTALL)


def build(folder: Path) -> str:
    """Configures, builds and installs as the package's own build does; what all of it printed."""
    configure = ["cmake", "-S", SOURCE, "-B", folder / "build", "-DCMAKE_BUILD_TYPE=Release"]
    install = ["cmake", "--install", folder / "build", "--prefix", folder]
    steps = (configure, ["cmake", "--build", folder / "build"], install)
    environment = {**os.environ, "CUDAFLAGS": "-Xptxas=-v"}
    ran = [
        subprocess.run(s, check=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=environment)
        for s in steps
    ]
    return "".join(step.stdout for step in ran)


def number(pattern: str, text: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0


def resources(printed: str) -> dict[str, dict[str, int]]:
    entries = list(ENTRY.finditer(printed))
    symbols = "\n".join(entry[1] for entry in entries)
    names = subprocess.run(["c++filt"], input=symbols, check=True, capture_output=True, text=True).stdout.splitlines()
    made = {}
    for entry, name in zip(entries, names, strict=True):
        short = re.sub(r"void |lesionforge::cuda::|\(anonymous namespace\)::", "", name).partition("(")[0]
        made[f"{short} {entry[2]}"] = {
            "registers": number(r"Used (\d+) registers", entry[0]),
            "spilled_bytes": number(r"(\d+) bytes spill stores", entry[0]),
            "shared_bytes": number(r"(\d+) bytes smem", entry[0]),
        }
    return dict(sorted(made.items()))


def main() -> None:
    printed = build(Path(sys.argv[1]))
    version = re.search(r"NVIDIA (\d+\.\d+)", printed)
    print(json.dumps({"nvcc": version[1] if version else None, "kernels": resources(printed)}, indent=1))


if __name__ == "__main__":
    main()
