"""What methods on a Stable Diffusion base share: loading it, prompts, recorded attention, sampling.

The names below load on first use: importing this package imports no torch.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .attention import AttentionRecorder, RecordedAttention, record_attention
    from .attention_layers import attention_layers
    from .base import StableDiffusionBase, load_base, save_base
    from .prompts import EncodedPrompts, PromptEncoder, PromptTruncationWarning, encode_prompts
    from .sampling import decode, encode, sample
    from .tiny import tiny_stable_diffusion
    from .tokens import clip_tokenizer, count_tokens

__all__ = [
    "AttentionRecorder",
    "EncodedPrompts",
    "PromptEncoder",
    "PromptTruncationWarning",
    "RecordedAttention",
    "StableDiffusionBase",
    "attention_layers",
    "clip_tokenizer",
    "count_tokens",
    "decode",
    "encode",
    "encode_prompts",
    "load_base",
    "record_attention",
    "sample",
    "save_base",
    "tiny_stable_diffusion",
]

_HOMES = {
    "AttentionRecorder": ".attention",
    "EncodedPrompts": ".prompts",
    "PromptEncoder": ".prompts",
    "PromptTruncationWarning": ".prompts",
    "RecordedAttention": ".attention",
    "StableDiffusionBase": ".base",
    "attention_layers": ".attention_layers",
    "clip_tokenizer": ".tokens",
    "count_tokens": ".tokens",
    "decode": ".sampling",
    "encode": ".sampling",
    "encode_prompts": ".prompts",
    "load_base": ".base",
    "record_attention": ".attention",
    "sample": ".sampling",
    "save_base": ".base",
    "tiny_stable_diffusion": ".tiny",
}


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name], __name__), name)


def __dir__() -> list[str]:
    return sorted(__all__)
