"""Whole processes: how long a user waits before anything happens."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

from lesionforge.kernels.measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender

from .benchmark import Benchmark

COMMANDS = (("--help",), ("plugins", "list"))
LIBRARIES = "from diffusers import StableDiffusionPipeline"


def startup_case(arguments: tuple[str, ...], device: str) -> Case:
    """The command, against processes that only import what released scripts import before they parse anything."""
    script = Path(sys.executable).with_name("lesionforge")
    contenders = (
        Contender("import diffusers", process(sys.executable, "-c", LIBRARIES), LIBRARIES, 0.0, REFERENCE_METHOD),
        Contender("import torch", process(sys.executable, "-c", "import torch"), "import torch", 0.0, BEST_TORCH),
        Contender("lesionforge", process(str(script), *arguments), "the command", 0.0, automatic=True),
    )
    command = f"lesionforge {' '.join(arguments)}"
    return Case("startup", command, contenders, lambda: 0, device, lambda code, _: abs(code))


def process(*command: str) -> Callable[[], int]:
    """Run a command; its exit code is the result."""
    return lambda: subprocess.run(command, capture_output=True).returncode


BENCHMARK = Benchmark(
    "startup",
    "processes of `lesionforge --help` and `lesionforge plugins list`",
    COMMANDS,
    COMMANDS[:1],
    startup_case,
    devices=("cpu",),
)
