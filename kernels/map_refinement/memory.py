"""Whether the mean map of a case fits in memory."""

from __future__ import annotations

from pathlib import Path

import torch

SHARE = 0.5  # of the free memory that a map may take
# The process's own group as a container sees it, by version 2 and 1: limit, use, statistics, the part of the use that
# is cached files to be dropped.
_V2, _V1 = Path("/sys/fs/cgroup"), Path("/sys/fs/cgroup/memory")
CONTROL_GROUPS = (
    (_V2 / "memory.max", _V2 / "memory.current", _V2 / "memory.stat", "inactive_file"),
    (_V1 / "memory.limit_in_bytes", _V1 / "memory.usage_in_bytes", _V1 / "memory.stat", "total_inactive_file"),
)


def strategy_for(tokens: int, steps: int, dtype: torch.dtype, device: torch.device) -> str:
    """mean_map if the map is read more than once and takes half of the free memory at most, else matrix_free.

    Also matrix_free where nothing tells how much memory is free.
    """
    if steps < 2:
        return "matrix_free"
    free = free_bytes(device)
    return "mean_map" if free is not None and tokens**2 * dtype.itemsize <= SHARE * free else "matrix_free"


def free_bytes(device: torch.device) -> int | None:
    """Bytes free on a CUDA device, with what torch holds in reserve; else those of main memory without swapping.

    In a container no more than its limit leaves. None where Linux's files do not tell.
    """
    if device.type == "cuda":
        reserve = torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
        return torch.cuda.mem_get_info(device)[0] + reserve
    known = [free for free in (_available(Path("/proc/meminfo")), *map(_left, CONTROL_GROUPS)) if free is not None]
    return min(known, default=None)


def _available(meminfo: Path) -> int | None:
    try:
        return _number(meminfo, "MemAvailable:") * 1024
    except (OSError, ValueError):
        return None


def _left(group: tuple[Path, Path, Path, str]) -> int | None:
    """What a control group may still take; None without one or where its limit is "max"."""
    limit, used, statistics, droppable = group
    try:
        free = int(limit.read_text(encoding="ascii")) - int(used.read_text(encoding="ascii"))
        return max(0, free + _number(statistics, droppable))
    except (OSError, ValueError):
        return None


def _number(table: Path, name: str) -> int:
    """The number after `name` in a file of names and numbers; ValueError without it."""
    for line in table.read_text(encoding="ascii").splitlines():
        if line.split()[:1] == [name]:
            return int(line.split()[1])
    raise ValueError(f"{table} has no line {name}")
