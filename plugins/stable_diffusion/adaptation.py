"""Training on a base: what of its U-Net learns, the loop in which it does, and the base with what was learnt."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
from peft import LoraConfig, get_peft_model
from peft.peft_model import PeftModel
from torch import nn

from ...core.context import Context
from ...core.seeding import name_seed
from ...core.training import TrainingLoop
from .base import StableDiffusionBase, save_base
from .sampling import latent_size
from .settings import TuningSettings

LORA_TARGETS = ("to_q", "to_k", "to_v", "to_out.0")


def trainable_unet(base: StableDiffusionBase, *, lora_rank: int, gradient_checkpointing: bool, seed: int) -> nn.Module:
    """Freeze ``base`` but for its U-Net, or but for LoRA on its attention projections, and return what learns.

    LoRA is put into the base's own U-Net, so that the base shows what was learnt; see :func:`save_learnt`.

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
    return with_lora(base, rank=lora_rank, alpha=lora_rank, targets=LORA_TARGETS, seed=seed)


def with_lora(base: StableDiffusionBase, *, rank: int, alpha: int, targets: Sequence[str], seed: int) -> PeftModel:
    """Put LoRA into the U-Net of ``base``, whose own weights it freezes; first weights depend on ``seed`` alone.

    Raises:
        ValueError: the U-Net has no layers of the names in ``targets``.
    """
    lora = LoraConfig(r=rank, lora_alpha=alpha, target_modules=list(targets))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(name_seed(str(seed), "adapter") >> 1)
        adapted = get_peft_model(base.unet, lora)  # type: ignore[arg-type]
    assert isinstance(adapted, PeftModel)
    return adapted


def tuning_loop(
    settings: TuningSettings,
    network: nn.Module,
    *,
    examples: int,
    output: Path,
    context: Context,
    warmup_steps: int = 0,
    ema_decay: float = 0.0,
) -> TrainingLoop:
    """Return the loop that trains by AdamW what is not frozen of ``network``, as ``settings`` say.

    Args:
        warmup_steps: steps in which the rate rises linearly to that of the settings; it stays there.
        ema_decay: decay of the averaged weights; 0: none.
    """
    learnt = [parameter for parameter in network.parameters() if parameter.requires_grad]
    return TrainingLoop(
        model=network,
        optimizer=torch.optim.AdamW(learnt, lr=settings.learning_rate, weight_decay=settings.weight_decay, fused=True),
        output=output,
        context=context,
        steps=settings.steps,
        batch_size=settings.batch_size,
        examples=examples,
        rate=lambda step: min(1.0, (step + 1) / max(warmup_steps, 1)),
        clip_norm=settings.clip_norm,
        ema_decay=ema_decay or None,
        checkpoint_every=settings.checkpoint_every,
    )


def save_learnt(base: StableDiffusionBase, network: nn.Module, size: int, folder: Path) -> None:
    """Write ``base`` with what ``network``, its :func:`trainable_unet`, has learnt at ``size`` pixels into ``folder``.

    LoRA is added to the weights. The folder's own size is the trained one, at which images are drawn unless told
    otherwise.
    """
    if isinstance(network, PeftModel):
        network.merge_and_unload()
    base.unet.register_to_config(sample_size=latent_size(base, size))
    save_base(base, folder)
