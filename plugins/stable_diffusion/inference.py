"""A base made ready to sample from: on its device, frozen, its weights in the precision that networks run in."""

from __future__ import annotations

from pathlib import Path

import torch
from torch import nn

from ...core.context import Context
from .base import StableDiffusionBase, load_base


def ready_base(where: str | Path, context: Context, *, compile: bool = False) -> StableDiffusionBase:
    """Load a base for inference under ``context.autocast()``, see :func:`made_ready`.

    Raises:
        CheckpointError: see :func:`load_base`.
    """
    return made_ready(load_base(where), context, compile=compile)


def made_ready(base: StableDiffusionBase, context: Context, *, compile: bool = False) -> StableDiffusionBase:
    """Freeze a base, perhaps changed after loading, round its weights and move it to the context's device.

    Args:
        compile: compile the U-Net, see :meth:`StableDiffusionBase.compiled`.
    """
    for network in (base.unet, base.vae, base.text_encoder):
        network.requires_grad_(False)
    round_frozen_weights(base, context)
    base.to(context.device)
    return base.compiled() if compile else base


def round_frozen_weights(base: StableDiffusionBase, context: Context) -> None:
    """Round frozen weights of U-Net and VAE, see :func:`round_network`."""
    for network in (base.unet, base.vae):
        round_network(network, context)


def round_network(network: nn.Module, context: Context) -> None:
    """Round frozen weights of linear layers and convolutions to bf16 where the context's networks run in it.

    Autocast would round frozen weights to the same bits in every pass. Normalisation keeps its fp32 weights.
    """
    if context.precision != "bf16":
        return
    for layer in network.modules():
        if isinstance(layer, nn.Linear | nn.Conv2d) and not layer.weight.requires_grad:
            layer.to(torch.bfloat16)
