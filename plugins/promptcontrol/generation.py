"""Images from masks and prompts by a base and its ControlNet."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.context import Context
from ...core.errors import PluginError
from ..stable_diffusion.base import load_base
from ..stable_diffusion.inference import made_ready, round_network
from ..stable_diffusion.prompts import PromptEncoder
from ..stable_diffusion.sampling import Residuals, decode, sample_cases
from .controlnet import condition_images, load_controlnet
from .prompts import typed_prompt

if TYPE_CHECKING:
    from .plugin import PromptControlGeneratorConfig


class ControlledSampler:
    """A loaded base and ControlNet that turn batches with masks into images."""

    def __init__(self, config: PromptControlGeneratorConfig, context: Context) -> None:
        """Load both onto the context's device.

        Raises:
            CheckpointError: one of them cannot be used, or the ControlNet was trained on another base.
        """
        self._config, self._context = config, context
        base = load_base(config.base)
        self._network, trained_size = load_controlnet(Path(config.checkpoint), base)
        self._size = config.size or trained_size
        self._base = made_ready(base, context, compile=config.compile)
        round_network(self._network, context)
        self._network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._encode = PromptEncoder(self._base)

    def fill(self, batch: Batch) -> Batch:
        """Return the batch with images, and with the prompts that were given to the text encoder.

        Raises:
            PluginError: there are no masks, or they are not binary, or of another size than the images to make.
        """
        masks = self._masks(batch)
        nothing = (None,) * len(batch)
        pairs = zip(batch.prompts or nothing, batch.labels or nothing, strict=True)
        prompts = [typed_prompt(prompt, label) for prompt, label in pairs]
        latents = sample_cases(
            self._base,
            self._encode(prompts, cases=batch.ids),
            batch.seeds,
            self._config,
            self._context,
            size=self._size,
            control=lambda latents, timestep, states: self._residuals(masks, latents, timestep, states),
        )
        return batch.with_columns(images=decode(self._base, latents, context=self._context), prompts=prompts)

    def _residuals(self, masks: Tensor, latents: Tensor, timestep: Tensor, states: Tensor) -> Residuals:
        """Return what the ControlNet adds; both branches of classifier-free guidance see the mask (ours)."""
        branches = len(latents) // len(masks)
        return self._network(
            latents,
            timestep,
            states,
            controlnet_cond=condition_images(masks).repeat(branches, 1, 1, 1),
            conditioning_scale=self._config.conditioning_scale,
            return_dict=False,
        )

    def _masks(self, batch: Batch) -> Tensor:
        where = f"stage {self._context.name}"
        batch.require("masks", stage=self._context.name)
        assert batch.masks is not None
        edge = tuple(batch.masks.shape[2:])
        if edge != (self._size, self._size):
            raise PluginError(
                f"{where}: masks of {edge[0]} x {edge[1]} pixels for images of {self._size} x {self._size}; give "
                f"the stage that makes them size={self._size}"
            )
        if not bool(((batch.masks == 0) | (batch.masks == 1)).all()):
            raise PluginError(f"{where}: masks have values other than 0 and 1; give the masks, not soft masks")
        return batch.masks
