"""First training: the autoencoder, then the latents of all training images, which the second training learns from."""

from __future__ import annotations

import shutil
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from torch import Tensor, nn

from ....core.context import Context
from ....core.dataset import Dataset, image_tensor
from ....core.durable import new_folder
from ....core.errors import CheckpointError, PluginFailure, first_line
from ....core.training import Snapshot, TrainingLoop, cosine_rate
from ....core.training_state import STATE_FOLDER
from ..kept import LATENTS, kept_tensors
from ..posterior import posterior
from .images import POSES, in_poses, pixels, random_crops
from .losses import autoencoder_losses
from .networks import Autoencoder, fresh_autoencoder
from .pictures import save_reconstructions

if TYPE_CHECKING:
    from .plugin import LatentDiffusionConfig

FOLDER = "autoencoder"
TRAINED = Path(STATE_FOLDER, "vae")
ENCODING_BATCH = 16
PICTURED = 8
PICTURES = 4


def trained_autoencoder(
    config: LatentDiffusionConfig, context: Context, train: Dataset, val: Dataset | None, output: Path
) -> AutoencoderKL:
    """Return the autoencoder in fp32 with weights rounded to bf16, as it is published; trained unless it is there.

    It is kept with the resume state until the job is done. Its ``scaling_factor`` brings the latents of ``train`` to
    deviation 1 (Rombach et al. 2022, appendix G).
    """
    folder = output / TRAINED
    if not folder.exists():
        vae = _train(config, context, train, val, output)
        nn.Module.to(nn.Module.to(vae, torch.bfloat16), torch.float32)
        deviation = float(encoded(vae, train, 1, context).std())
        if not deviation > 0:
            raise PluginFailure(f"training {context.name}: the autoencoder gives the same latent to everything")
        vae.register_to_config(scaling_factor=1 / deviation)
        with new_folder(folder) as draft:
            vae.save_pretrained(draft)
    shutil.rmtree(output / FOLDER / STATE_FOLDER, ignore_errors=True)
    try:
        return AutoencoderKL.from_pretrained(folder, local_files_only=True, use_safetensors=True).eval()
    except (OSError, ValueError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"{folder} is damaged: {first_line(error)}; delete it to train it again") from error


def latents_of(train: Dataset, vae: AutoencoderKL, poses: int, context: Context, output: Path) -> Tensor:
    """Return the latents of ``train``, kept on disk until the job is done: (poses, N, C, h, w) fp16 on the CPU.

    They are posterior means times ``scaling_factor`` (ours: their noise is far below what diffusion adds).
    """

    def scaled() -> dict[str, Tensor]:
        return {"latents": (encoded(vae, train, poses, context) * vae.config["scaling_factor"]).half()}

    return kept_tensors(output / LATENTS, scaled, len(train), axis=1)["latents"]


def _train(
    config: LatentDiffusionConfig, context: Context, train: Dataset, val: Dataset | None, output: Path
) -> AutoencoderKL:
    network = Autoencoder(fresh_autoencoder(config, context.seed))
    (output / FOLDER).mkdir(exist_ok=True)
    loop = TrainingLoop(
        model=network,
        optimizer=torch.optim.AdamW(
            network.parameters(), lr=config.autoencoder_learning_rate, weight_decay=config.weight_decay, fused=True
        ),
        output=output / FOLDER,
        context=replace(context, name=f"{context.name}/{FOLDER}"),
        steps=config.autoencoder_steps,
        batch_size=config.autoencoder_batch_size,
        examples=len(train),
        rate=cosine_rate(config.autoencoder_steps, config.warmup_steps),
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay or None,
        checkpoint_every=config.checkpoint_every,
    )

    def losses(rows: list[int], step: int) -> Mapping[str, Tensor]:
        images = pixels(train, rows, loop.device)
        if config.flips:
            images = in_poses(images, torch.randint(POSES, (len(rows),)))
        crops = random_crops(images, config.autoencoder_crop)
        return autoencoder_losses(
            loop.network, crops, gradient_weight=config.gradient_weight, kl_weight=config.kl_weight
        )

    shown = train if val is None else val
    chosen = pixels(shown, range(min(PICTURED, len(shown))), loop.device)
    loop.run(losses, snapshot=_snapshot(chosen, config, context, output) if config.snapshot_every else None)
    return network.vae


def _snapshot(images: Tensor, config: LatentDiffusionConfig, context: Context, output: Path) -> Snapshot:
    def take(model: nn.Module, step: int) -> None:
        assert isinstance(model, Autoencoder)
        with context.autocast():
            decoded = model.vae(images).sample.float()
        save_reconstructions(images, decoded, output / FOLDER, step)

    return Snapshot(-(-config.autoencoder_steps // PICTURES), take)


@torch.inference_mode()
def encoded(vae: AutoencoderKL, dataset: Dataset, poses: int, context: Context) -> Tensor:
    """Return the posterior means of all images in their first ``poses``, (poses, N, C, h, w) fp32 on the CPU."""
    vae.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
    means: list[list[Tensor]] = [[] for _ in range(poses)]
    for start in range(0, len(dataset), ENCODING_BATCH):
        rows = range(start, min(start + ENCODING_BATCH, len(dataset)))
        images = image_tensor(dataset.images_array(rows)).to(context.device)
        for pose, found in enumerate(means):
            with context.autocast():
                mean = posterior(vae, in_poses(images, torch.full((len(images),), pose))).mean
            found.append(mean.float().cpu())
    return torch.stack([torch.cat(found) for found in means])
