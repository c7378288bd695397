"""Numerical kernels behind one public function each; every op has a plain-torch reference and may have faster backends.

The names below load on first use: importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .dispatch import BackendUnavailable
    from .map_leakage import attention_leakage
    from .map_refinement import attention_refinement
    from .mask_extraction import clean_masks, extract_masks, otsu_threshold
    from .norm_act_conv import norm_act_conv2d
    from .seeded_noise import philox_u32, seeded_normal, seeded_uniform, stream_of
    from .token_maps import token_attention

__all__ = [
    "BackendUnavailable",
    "attention_leakage",
    "attention_refinement",
    "clean_masks",
    "extract_masks",
    "norm_act_conv2d",
    "otsu_threshold",
    "philox_u32",
    "seeded_normal",
    "seeded_uniform",
    "stream_of",
    "token_attention",
]

_HOMES = {
    "BackendUnavailable": ".dispatch",
    "attention_leakage": ".map_leakage",
    "attention_refinement": ".map_refinement",
    "clean_masks": ".mask_extraction",
    "extract_masks": ".mask_extraction",
    "otsu_threshold": ".mask_extraction",
    "norm_act_conv2d": ".norm_act_conv",
    "philox_u32": ".seeded_noise",
    "seeded_normal": ".seeded_noise",
    "seeded_uniform": ".seeded_noise",
    "stream_of": ".seeded_noise",
    "token_attention": ".token_maps",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
