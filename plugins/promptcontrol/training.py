"""Training a ControlNet on masks and prompts, its base locked (paper, section 2.2; Zhang et al. 2023)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn
from torch.nn.functional import mse_loss

from ...core.context import Context
from ...core.dataset import Dataset, mask_tensor
from ..stable_diffusion.adaptation import tuning_loop
from ..stable_diffusion.base import StableDiffusionBase, load_base
from ..stable_diffusion.fingerprint import base_fingerprint
from ..stable_diffusion.inference import made_ready
from ..stable_diffusion.kept import kept_captions, kept_latents
from ..stable_diffusion.latents import PosteriorLatents
from ..stable_diffusion.prompts import PromptEncoder
from ..stable_diffusion.sampling import latent_size
from .controlnet import condition_images, fresh_controlnet, save_controlnet
from .prompts import typed_prompt

if TYPE_CHECKING:
    from .plugin import PromptControlTrainerConfig


def train(config: PromptControlTrainerConfig, dataset: Dataset, output: Path, context: Context) -> None:
    """Train as ``config`` says and leave controlnet/, promptcontrol.json and curves in ``output``.

    Raises:
        CheckpointError: the base cannot be used.
        ConfigError: the size does not fit the base.
        DataError: no image has a mask, or one has no caption.
    """
    base = load_base(config.base)
    latent_size(base, config.size)
    fingerprint, network = base_fingerprint(base), fresh_controlnet(base, context.seed)
    made_ready(base, context)
    if config.gradient_checkpointing:
        network.enable_gradient_checkpointing()
        base.unet.enable_gradient_checkpointing()
    examples = prepared_examples(base, dataset, config, context, output)
    loop = tuning_loop(config, network, examples=len(examples.prompts), output=output, context=context)
    training = ControlTraining(base, examples, config.empty_share, loop.device)
    loop.run(lambda rows, step: training.losses(loop.network, rows))
    save_controlnet(network, fingerprint, config.size, output)


@dataclass(frozen=True)
class Examples:
    """Everything that training learns from, on the CPU: images as latents, masks, and one prompt an image."""

    dataset: Dataset
    latents: PosteriorLatents
    prompts: list[str]


def prepared_examples(
    base: StableDiffusionBase, dataset: Dataset, config: PromptControlTrainerConfig, context: Context, output: Path
) -> Examples:
    """Caption and encode the images that have a mask, once, and keep both in ``output``.

    Nothing is mirrored, since captions tell where the lesion is (ours).
    """
    dataset = dataset.with_masks().resized(config.size)
    captions = kept_captions(dataset, config.captioner, context, output)
    labels = [record.label for record in dataset.records]
    prompts = [typed_prompt(caption, label) for caption, label in zip(captions, labels, strict=True)]
    return Examples(dataset, kept_latents(base, dataset, context, output), prompts)


class ControlTraining:
    """The loss of one step: the squared error of what the locked base predicts with the ControlNet's help."""

    def __init__(
        self, base: StableDiffusionBase, examples: Examples, empty_share: float, device: torch.device
    ) -> None:
        self.base, self.examples, self.device = base, examples, device
        self._empty_share = empty_share
        self._encode = PromptEncoder(base)

    def losses(self, network: nn.Module, rows: list[int]) -> Mapping[str, Tensor]:
        """Return ``loss`` of a batch, drawn by torch's random state; t is uniform.

        A prompt is left empty with probability ``empty_share``, so that the mask alone has to suffice.
        """
        empty = (torch.rand(len(rows)) < self._empty_share).tolist()
        prompts = ["" if drop else self.examples.prompts[row] for drop, row in zip(empty, rows, strict=True)]
        clean = self.examples.latents.drawn(rows, self.device)
        noise = torch.randn(clean.shape).to(clean)
        timesteps = torch.randint(self.base.schedule.timesteps, (len(rows),)).to(self.device)
        masks = mask_tensor(self.examples.dataset.masks_array(rows)).to(self.device)
        predicted = self.predict(network, self.base.schedule.noised(clean, noise, timesteps), timesteps, prompts, masks)
        return {"loss": mse_loss(predicted.float(), self.base.schedule.target(clean, noise, timesteps))}

    def predict(
        self, network: nn.Module, noisy: Tensor, timesteps: Tensor, prompts: list[str], masks: Tensor
    ) -> Tensor:
        """Return what the base predicts for noisy latents (B, 4, h, w) of images with these prompts and masks."""
        with torch.no_grad():
            states = self._encode(prompts).states
        skips, middle = network(
            noisy, timesteps, states, controlnet_cond=condition_images(masks), return_dict=False
        )
        return self.base.unet(
            noisy,
            timesteps,
            states,
            down_block_additional_residuals=skips,
            mid_block_additional_residual=middle,
            return_dict=False,
        )[0]
