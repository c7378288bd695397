"""Where and on what code a benchmark was run."""

from __future__ import annotations

import os
import platform
import subprocess
from datetime import date
from pathlib import Path
from typing import Any

import torch

ROOT = Path(__file__).parents[1]


def describe() -> dict[str, Any]:
    """What the numbers depend on: processor, load, versions, GPU, date and revision."""
    return {
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "load": round(os.getloadavg()[0], 2),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "cuda": torch.version.cuda if torch.cuda.is_available() else None,
        "python": platform.python_version(),
        "torch": torch.__version__,
        "wait_policy": os.environ.get("OMP_WAIT_POLICY"),
        "date": date.today().isoformat(),
        "revision": revision(),
    }


def revision() -> str | None:
    """The commit of the checkout, with "+" where it has been changed; None without git."""
    try:
        commit, changes = (
            subprocess.run(["git", *command], cwd=ROOT, check=True, capture_output=True, text=True).stdout.strip()
            for command in (("rev-parse", "--short", "HEAD"), ("status", "--porcelain", "--untracked-files=no"))
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return f"{commit}+" if changes else commit


def in_words(machine: dict[str, Any]) -> str:
    """One line."""
    return ", ".join(f"{key.replace('_', ' ')} {value}" for key, value in machine.items() if value is not None)
