"""Whether the mean map of a case fits in memory."""

from __future__ import annotations

import os
from pathlib import Path

import torch

SHARE = 0.5  # of the free memory that a map may take


def strategy_for(tokens: int, steps: int, dtype: torch.dtype, device: torch.device) -> str:
    """mean_map if the map is read more than once and takes half of the free memory at most, else matrix_free."""
    if steps < 2:
        return "matrix_free"
    return "mean_map" if tokens**2 * dtype.itemsize <= SHARE * free_bytes(device) else "matrix_free"


def free_bytes(device: torch.device) -> int:
    """Bytes free on a CUDA device, with what torch holds in reserve; else those of main memory without swapping."""
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    try:
        with Path("/proc/meminfo").open(encoding="ascii") as lines:
            return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:"))
    except (FileNotFoundError, StopIteration):
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") // 2
