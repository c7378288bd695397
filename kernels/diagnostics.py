"""Tells `lesionforge kernels` which backends this machine can use and how fast, by hooks: core knows no kernel."""

from __future__ import annotations

from collections.abc import Callable
from importlib import import_module
from typing import Any

import pluggy

hookimpl = pluggy.HookimplMarker("lesionforge")

# Folders of ops; each names its ops in OPS, and in its benchmark.py the cases on which they are timed.
FOLDERS = ("map_leakage", "map_refinement", "mask_extraction", "norm_act_conv", "seeded_noise", "token_maps")
BUDGET_S = 1.5  # for the turns of one case, at three turns or more


@hookimpl
def kernel_diagnostics(measure: bool) -> list[dict[str, str | float | None]]:
    """One row for each op and backend, as `Op.diagnose` makes them; max_error if measured."""
    folders = [import_module(f"..{name}", __name__) for name in FOLDERS]
    return [row for folder in folders for op in folder.OPS for row in op.diagnose(measure=measure)]


@hookimpl
def kernel_timings(progress: Callable[[int, int], None]) -> list[dict[str, Any]]:
    """One row for each op, device and contender, as `measuring.measure` makes them. Raises its Disagreement."""
    import torch

    from .measuring import measure

    devices = ("cpu", "cuda") if torch.cuda.is_available() else ("cpu",)
    parts = [(folder, device) for folder in FOLDERS for device in devices]
    rows = []
    for done, (folder, device) in enumerate(parts):
        progress(done, len(parts))
        for case in import_module(f"..{folder}.benchmark", __name__).diagnostic_cases(device):
            rows += measure(case, budget_s=BUDGET_S)
    progress(len(parts), len(parts))
    return rows
