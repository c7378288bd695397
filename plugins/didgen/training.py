"""Region-aware fine-tuning (paper, section 2.3): the noise prediction, and where the placeholder tokens attend."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.context import Context
from ...core.dataset import Dataset, image_tensor
from ...core.errors import ConfigError
from ...core.training import Snapshot
from ..stable_diffusion.adaptation import save_learnt, trainable_unet, tuning_loop
from ..stable_diffusion.attention import RecordedAttention, record_attention
from ..stable_diffusion.base import StableDiffusionBase, load_base
from ..stable_diffusion.prompts import PromptEncoder
from .examples import Examples, encoded_examples
from .losses import region_loss, token_maps
from .pictures import save_map_sheet
from .placeholders import PREFIX, add_placeholders, placeholder_places

if TYPE_CHECKING:
    from .plugin import DiDGenTrainerConfig

PICTURED_TIMESTEP = 250
"""Noise level of the pictures of maps: shapes are there, and so is noise (ours)."""


def train(config: DiDGenTrainerConfig, dataset: Dataset, output: Path, context: Context) -> None:
    """Fine-tune as ``config`` says and leave a diffusers folder, curves and pictures of the maps in ``output``.

    Raises:
        CheckpointError: the base cannot be used.
        ConfigError: there is no cross-attention at the resolution that the loss asks for.
        DataError: an image has no caption.
    """
    base = load_base(config.base)
    add_placeholders(base)
    _check_resolution(base, config)
    examples = encoded_examples(base, dataset, config, context, output)
    network = trainable_unet(
        base,
        lora_rank=config.lora_rank,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=context.seed,
    )
    loop = tuning_loop(
        config,
        network,
        examples=len(examples),
        output=output,
        context=context,
        warmup_steps=config.warmup_steps,
        ema_decay=config.ema_decay,
    )
    tuning = FineTuning(base, examples, config, loop.device)
    sheets = MapSheets(tuning, output / "maps")
    loop.run(
        lambda rows, step: tuning.losses(loop.network, rows),
        snapshot=Snapshot(config.snapshot_every, sheets.take) if config.snapshot_every and sheets.rows else None,
    )
    save_learnt(base, network, config.size, output)


def _check_resolution(base: StableDiffusionBase, config: DiDGenTrainerConfig) -> None:
    try:
        record_attention(base.unet, cross_attention=[config.cross_factor])
    except ValueError as error:
        raise ConfigError(f"training: {error}; choose cross_factor among them") from error


class FineTuning:
    """The losses of one step (equation 4): L = L_rec + alpha L_attn, the latter over the images that have a mask."""

    def __init__(
        self, base: StableDiffusionBase, examples: Examples, config: DiDGenTrainerConfig, device: torch.device
    ) -> None:
        self.base, self.examples, self.config, self.device = base, examples, config, device
        base.text_encoder.to(device)  # type: ignore[arg-type]
        self._encode = PromptEncoder(base)

    def losses(self, network: nn.Module, rows: list[int]) -> Mapping[str, Tensor]:
        """Return ``loss``, ``reconstruction`` and ``region`` of a batch, drawn by torch's random state.

        Prompts are the prefix alone with probability ``prefix_share`` (METHODS: 20 %); t is uniform.
        """
        prompts = [self.examples.prompts[row] for row in rows]
        alone = torch.rand(len(rows)) < self.config.prefix_share
        prompts = [PREFIX if drawn else prompt for drawn, prompt in zip(alone.tolist(), prompts, strict=True)]
        clean = self.examples.latents.drawn(rows, self.device)
        noise = torch.randn(clean.shape).to(clean)
        timesteps = torch.randint(self.base.schedule.timesteps, (len(rows),)).to(self.device)
        predicted, maps, tokens = self.predict(network, clean, noise, timesteps, prompts)
        target = self.base.schedule.target(clean, noise, timesteps)
        reconstruction = functional.mse_loss(predicted.float(), target)
        region = self._region(maps, tokens, rows)
        loss = reconstruction + self.config.region_weight * region
        return {"loss": loss, "reconstruction": reconstruction, "region": region}

    def predict(
        self, network: nn.Module, clean: Tensor, noise: Tensor, timesteps: Tensor, prompts: Sequence[str]
    ) -> tuple[Tensor, RecordedAttention, Tensor]:
        """Return what the network makes of noised latents, its cross-attention, and the placeholders' places (B, 2)."""
        with torch.no_grad():
            encoded = self._encode(prompts)
        tokens = placeholder_places(self.base, encoded, prompts, where="training").to(self.device)
        noisy = self.base.schedule.noised(clean, noise, timesteps)
        with record_attention(network, cross_attention=[self.config.cross_factor]) as recording:
            predicted = network(noisy, timesteps, encoded.states, return_dict=False)[0]
        return predicted, recording.cross_attention(), tokens

    def _region(self, maps: RecordedAttention, tokens: Tensor, rows: list[int]) -> Tensor:
        """Return L_attn, the mean over the images that have a mask; 0 where none has."""
        masked = self.examples.masked[rows].to(self.device)
        masks = self.examples.masks(rows, self.device)
        losses = region_loss(maps, tokens, masks, compat=self.config.compat)
        return (losses * masked).sum() / masked.sum().clamp(min=1)


class MapSheets:
    """Draws what the placeholders attend to in always the same images, spread evenly over those with a mask."""

    def __init__(self, tuning: FineTuning, folder: Path) -> None:
        examples = tuning.examples
        masked: list[int] = examples.masked.nonzero().flatten().tolist()
        count = min(tuning.config.snapshot_count, len(masked))
        self.rows: list[int] = [masked[number * len(masked) // count] for number in range(count)]
        self._tuning, self._folder = tuning, folder

    def take(self, network: nn.Module, step: int) -> None:
        """Write ``step-NNNNNN.png``, see :func:`pictures.save_map_sheet`."""
        tuning, examples = self._tuning, self._tuning.examples
        clean = examples.latents.means[self.rows].to(tuning.device)
        noise = torch.randn(clean.shape).to(clean)
        timesteps = torch.full((len(self.rows),), PICTURED_TIMESTEP, device=tuning.device)
        prompts = [examples.prompts[row] for row in self.rows]
        _, maps, tokens = tuning.predict(network, clean, noise, timesteps, prompts)
        attended = token_maps(maps, tokens).mT
        edge = math.isqrt(attended.shape[-1])
        lesion, skin = attended.unflatten(-1, (edge, edge))[:, :, None].unbind(1)
        save_map_sheet(
            image_tensor(examples.dataset.images_array(self.rows)),
            examples.masks(self.rows, torch.device("cpu")),
            lesion,
            skin,
            self._folder / f"step-{step:06d}.png",
            title=f"step {step}: attention of the placeholders at timestep {PICTURED_TIMESTEP}",
        )
