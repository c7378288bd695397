"""Both trainings of a small base in one job folder, each resumed where it stopped."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from torch import Tensor, nn

from ....core.context import Context
from ....core.dataset import Dataset
from ....core.training import Snapshot, TrainingLoop, cosine_rate
from ..base import StableDiffusionBase, save_base
from ..samples import SampleSheets
from ..tokens import clip_tokenizer
from .autoencoder import latents_of, trained_autoencoder
from .captions import Prompts, captions_of, tokenized
from .card import write_card
from .images import POSES
from .losses import denoising_losses
from .networks import SCHEDULE, TextConditionedDenoiser, fresh_denoiser

if TYPE_CHECKING:
    from .plugin import LatentDiffusionConfig


def train_base(
    config: LatentDiffusionConfig, context: Context, train: Dataset, val: Dataset | None, output: Path
) -> None:
    """Train as ``config`` says and leave a diffusers folder, captions, curves, pictures and a model card in ``output``.

    Raises:
        DataError: an image has no caption, or one that is too long.
        CheckpointError: the state to resume from is damaged.
    """
    train, val = train.resized(config.size), None if val is None else val.resized(config.size)
    poses = POSES if config.flips else 1
    tokenizer = clip_tokenizer()
    captions = captions_of(train, config, poses, context, output)
    prompts = tokenized(captions, tokenizer, config)
    vae = trained_autoencoder(config, _part(context, config, 0), train, val, output)
    vae.to(context.device)  # type: ignore[arg-type]
    latents = latents_of(train, vae, poses, context, output)
    denoiser = fresh_denoiser(config, tokenizer, context.seed)

    def assembled(network: nn.Module) -> StableDiffusionBase:
        assert isinstance(network, TextConditionedDenoiser)
        return StableDiffusionBase(network.unet, vae, network.text_encoder, tokenizer, SCHEDULE, output)

    snapshot = None
    if config.snapshot_every:
        sheets = SampleSheets(
            assembled,
            captions[0],
            context,
            output / "samples",
            count=config.snapshot_count,
            size=config.size,
            guidance_scale=config.guidance_scale,
            unsaid=config.short_prompt,
        )
        snapshot = Snapshot(config.snapshot_every, sheets.take)
    _train_denoiser(denoiser, latents, prompts, snapshot, _part(context, config, config.autoencoder_steps), output)
    save_base(assembled(denoiser), output, dtype=torch.bfloat16)
    write_card(output, config, train, context)


def _part(context: Context, config: LatentDiffusionConfig, before: int) -> Context:
    """Return the context of one training, which reports its steps as part of both."""
    total = config.autoencoder_steps + config.steps

    def progress(done: int, _: int, metrics: Mapping[str, Any]) -> None:
        context.progress(before + done, total, metrics)

    return replace(context, progress=progress)


def _train_denoiser(
    denoiser: TextConditionedDenoiser,
    latents: Tensor,
    prompts: Prompts,
    snapshot: Snapshot | None,
    context: Context,
    output: Path,
) -> None:
    config = prompts.config
    loop = TrainingLoop(
        model=denoiser,
        optimizer=torch.optim.AdamW(
            denoiser.parameters(), lr=config.learning_rate, weight_decay=config.weight_decay, fused=True
        ),
        output=output,
        context=context,
        steps=config.steps,
        batch_size=config.batch_size,
        examples=latents.shape[1],
        rate=cosine_rate(config.steps, config.warmup_steps),
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay or None,
        checkpoint_every=config.checkpoint_every,
    )

    def losses(rows: list[int], step: int) -> Mapping[str, Tensor]:
        poses = torch.randint(len(latents), (len(rows),))
        clean = latents[poses, torch.tensor(rows)].to(loop.device, torch.float32, memory_format=torch.channels_last)
        tokens = prompts.take(poses, rows).to(loop.device)
        return denoising_losses(loop.network, SCHEDULE, clean, tokens, gamma=config.gamma)

    loop.run(losses, snapshot=snapshot)
