"""A base made ready to sample from: on its device, frozen, its weights in the precision that networks run in."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ...core.context import Context
from .base import StableDiffusionBase, load_base


def ready_base(where: str | Path, context: Context) -> StableDiffusionBase:
    """Load a base for inference under ``context.autocast()``.

    With bf16 the weights of linear layers and convolutions are rounded here, once: autocast would round frozen weights
    to the same bits in every pass. Normalisation keeps its fp32 weights.

    Raises:
        CheckpointError: see :func:`load_base`.
    """
    base = load_base(where)
    for network in (base.unet, base.vae, base.text_encoder):
        network.requires_grad_(False)
    if context.precision == "bf16":
        for network in (base.unet, base.vae):
            for layer in network.modules():
                if isinstance(layer, nn.Linear | nn.Conv2d):
                    layer.to(torch.bfloat16)
    return base.to(context.device)
