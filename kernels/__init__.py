"""Numerical kernels behind one public function each; every op has a plain-torch reference and may have faster backends.

The names below load on first use: importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dispatch import BackendUnavailable
    from .mask_extraction import extract_masks, otsu_threshold
    from .norm_act_conv import norm_act_conv2d
    from .seeded_noise import philox_u32, seeded_normal, seeded_uniform, stream_of

__all__ = [
    "BackendUnavailable",
    "extract_masks",
    "norm_act_conv2d",
    "otsu_threshold",
    "philox_u32",
    "seeded_normal",
    "seeded_uniform",
    "stream_of",
]

_HOMES = {
    "BackendUnavailable": ".dispatch",
    "extract_masks": ".mask_extraction",
    "norm_act_conv2d": ".norm_act_conv",
    "otsu_threshold": ".mask_extraction",
    "philox_u32": ".seeded_noise",
    "seeded_normal": ".seeded_noise",
    "seeded_uniform": ".seeded_noise",
    "stream_of": ".seeded_noise",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
