"""A base's U-Net made ready to learn: all of its weights, or low-rank updates of its attention."""

from __future__ import annotations

import torch
from peft import LoraConfig, get_peft_model
from peft.peft_model import PeftModel
from torch import nn

from ...core.seeding import name_seed
from .base import StableDiffusionBase

LORA_TARGETS = ["to_q", "to_k", "to_v", "to_out.0"]


def trainable_unet(base: StableDiffusionBase, *, lora_rank: int, gradient_checkpointing: bool, seed: int) -> nn.Module:
    """Freeze ``base`` but for its U-Net, or but for LoRA on its attention projections, and return what learns.

    LoRA is put into the base's own U-Net, so that the base shows what was learnt; see :func:`merged`.

    Args:
        lora_rank: 0 for the whole U-Net; LoRA's factor alpha is equal to the rank.
        seed: of LoRA's first weights.
    """
    base.vae.requires_grad_(False)
    base.text_encoder.requires_grad_(False)
    if gradient_checkpointing:
        base.unet.enable_gradient_checkpointing()
    if not lora_rank:
        return base.unet
    adapter = LoraConfig(r=lora_rank, lora_alpha=lora_rank, target_modules=LORA_TARGETS)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(name_seed(str(seed), "adapter") >> 1)
        return get_peft_model(base.unet, adapter)  # type: ignore[arg-type]


def merged(network: nn.Module) -> None:
    """Add what LoRA has learnt to the weights of the U-Net that it was put into; leave any other network as it is."""
    if isinstance(network, PeftModel):
        network.merge_and_unload()
