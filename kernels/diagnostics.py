"""Tells `lesionforge kernels` which backends this machine can use, through a hook: core knows no kernel."""

from __future__ import annotations

from importlib import import_module

import pluggy

hookimpl = pluggy.HookimplMarker("lesionforge")

# Folders of ops; each names its ops in OPS.
FOLDERS = ("map_leakage", "map_refinement", "mask_extraction", "norm_act_conv", "seeded_noise")


@hookimpl
def kernel_diagnostics(measure: bool) -> list[dict[str, str | float | None]]:
    """One row for each op and backend: op, backend, available, reason (None when available); max_error if measured."""
    folders = [import_module(f"..{name}", __name__) for name in FOLDERS]
    return [row for folder in folders for op in folder.OPS for row in op.diagnose(measure=measure)]
