"""Fine-tuning (paper, sections 3.3 and 4.2): noise, mask by cross-entropy and mask by Dice, one prompt for a pair."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn import functional

from ...core.context import Context
from ...core.dataset import Dataset
from ...core.training import Snapshot
from ..data.augmentation import Augmentation
from ..stable_diffusion.adaptation import tuning_loop
from ..stable_diffusion.base import LATENT_CHANNELS, StableDiffusionBase, load_base
from ..stable_diffusion.fingerprint import base_fingerprint
from ..stable_diffusion.inference import round_frozen_weights
from ..stable_diffusion.prompts import PromptEncoder
from ..stable_diffusion.sampling import latent_size
from .checkpoint import AdapterCard, save_adapter
from .examples import Examples, prompted_examples
from .losses import bce_loss, dice_loss
from .network import PairNetwork, Prediction, pair_network
from .pictures import save_pair_sheet

if TYPE_CHECKING:
    from .plugin import SkinDualGenTrainerConfig

PICTURED_TIMESTEP = 250
"""Noise level of the pictures: shapes are there, and so is noise (ours)."""


def train(config: SkinDualGenTrainerConfig, dataset: Dataset, output: Path, context: Context) -> None:
    """Fine-tune as ``config`` says and leave the adapter, curves and pictures in ``output``.

    Raises:
        CheckpointError: the base cannot be used.
        ConfigError: the size or the LoRA targets do not fit it.
        DataError: masks, labels or captions are missing, or a mask is not binary.
    """
    base = load_base(config.base)
    latent_size(base, config.size)
    card = AdapterCard(
        base=config.base,
        base_sha256=base_fingerprint(base),
        prediction_type=base.schedule.prediction_type,
        classes=dataset.with_masks().classes,
        size=config.size,
        dataset=dataset.name,
        terms=config.terms,
    )
    examples = prompted_examples(dataset, config, context, output)
    network = pair_network(base, config, context.seed)
    round_frozen_weights(base, context)
    base.to(context.device)
    loop = tuning_loop(config, network, examples=len(examples), output=output, context=context)
    tuning = FineTuning(base, examples, config, loop.device)
    sheets = PairSheets(tuning, output / "pairs")
    loop.run(
        lambda rows, step: tuning.losses(loop.network, rows),
        snapshot=Snapshot(config.snapshot_every, sheets.take) if config.snapshot_every else None,
    )
    save_adapter(network, card, output)


class FineTuning:
    """The losses of one step (equation 8): L = l1 L_diff + l2 L_mask + l3 L_dice."""

    def __init__(
        self, base: StableDiffusionBase, examples: Examples, config: SkinDualGenTrainerConfig, device: torch.device
    ) -> None:
        self.base, self.examples, self.config, self.device = base, examples, config, device
        self._encode = PromptEncoder(base)
        self._augment = Augmentation(
            flips=config.mirrored, rotation_degrees=config.rotation_degrees, scale=config.scale, colour=config.colour
        )

    def losses(self, network: nn.Module, rows: list[int]) -> Mapping[str, Tensor]:
        """Return ``loss``, ``diffusion``, ``bce`` and ``dice`` of a batch, drawn by torch's random state.

        t is uniform; a prompt is left empty with probability ``prompt_dropout``.
        """
        images, masks = self._augment(*self.examples.pairs(rows, self.device))
        prompts = [self.examples.prompts[row] for row in rows]
        empty = (torch.rand(len(rows)) < self.config.prompt_dropout).tolist()
        prompts = ["" if drawn else prompt for drawn, prompt in zip(empty, prompts, strict=True)]
        timesteps = torch.randint(self.base.schedule.timesteps, (len(rows),)).to(self.device)
        return self.terms(self.predict(network, images, masks, prompts, timesteps), masks)

    def predict(
        self, network: nn.Module, images: Tensor, masks: Tensor, prompts: list[str], timesteps: Tensor
    ) -> Prediction:
        """Return what the network makes of noised pairs (N, ...); draws come from torch's random state."""
        with torch.no_grad():
            states = self._encode(prompts).states
        edge = latent_size(self.base, images.shape[-1])
        draws, noise = torch.randn(2, len(images), LATENT_CHANNELS, edge, edge).to(self.device, images.dtype)
        return network(images, masks, draws, noise, timesteps, states)

    def terms(self, prediction: Prediction, masks: Tensor) -> Mapping[str, Tensor]:
        """Return the terms of equation 8 and their weighted sum."""
        config = self.config
        diffusion = functional.mse_loss(prediction.output, prediction.target)
        bce = bce_loss(prediction.logits, masks)
        dice = dice_loss(prediction.logits, masks, smoothing=config.dice_smoothing)
        loss = config.diffusion_weight * diffusion + config.bce_weight * bce + config.dice_weight * dice
        return {"loss": loss, "diffusion": diffusion, "bce": bce, "dice": dice}


class PairSheets:
    """Draws what the network makes of always the same noised pairs, spread evenly over the data."""

    def __init__(self, tuning: FineTuning, folder: Path) -> None:
        total = len(tuning.examples)
        count = min(tuning.config.snapshot_count, total)
        self._rows = [number * total // count for number in range(count)]
        self._tuning, self._folder = tuning, folder

    def take(self, network: nn.Module, step: int) -> None:
        """Write ``step-NNNNNN.png``, see :func:`pictures.save_pair_sheet`."""
        tuning = self._tuning
        assert isinstance(network, PairNetwork)
        images, masks = tuning.examples.pairs(self._rows, tuning.device)
        prompts = [tuning.examples.prompts[row] for row in self._rows]
        timesteps = torch.full((len(self._rows),), PICTURED_TIMESTEP, device=tuning.device)
        channels = tuning.predict(network, images, masks, prompts, timesteps).channels.float()
        save_pair_sheet(
            images,
            masks,
            channels,
            self._folder / f"step-{step:06d}.png",
            title=f"step {step}: pairs, and what is predicted of them at timestep {PICTURED_TIMESTEP}",
        )
