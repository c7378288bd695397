"""Image-mask pairs and images alone from a fine-tuned base."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.batch import Batch
from ...core.context import Context
from ...core.errors import ConfigError, PluginError
from ..diffusion.schedulers import ReverseProcess
from ..stable_diffusion.inference import ready_base
from ..stable_diffusion.prompts import PromptEncoder
from ..stable_diffusion.sampling import decode, latent_size, sample_cases
from .guidance import LayoutGuide, MapRecorders, guidance_rates
from .layout import LAYOUT_LOSSES, DiDGenLoss, LayoutLoss
from .placeholders import PREFIX, check_placeholders, placeholder_places

if TYPE_CHECKING:
    from .plugin import DiDGenGeneratorConfig


class PairSampler:
    """A loaded model that turns batches with prompts and masks, or without, into images and soft masks."""

    def __init__(self, config: DiDGenGeneratorConfig, context: Context) -> None:
        """Load the checkpoint onto the context's device.

        Raises:
            CheckpointError: it cannot be used, or was not fine-tuned with the placeholders.
            ConfigError: size or resolutions do not fit it.
        """
        self._config, self._context, self._stage = config, context, context.name
        self._base = ready_base(config.checkpoint, context, compile=config.compile)
        self._encode = PromptEncoder(self._base)
        self._size = config.size or self._base.size
        latent_size(self._base, self._size)
        check_placeholders(self._base, where=self._where)
        try:
            self._recorders = MapRecorders(
                self._base.unet, cross_factor=config.cross_factor, self_factor=config.self_factor
            )
        except ValueError as error:
            raise ConfigError(f"{self._where}: {error}; choose cross_factor and self_factor among them") from error
        process = ReverseProcess(self._base.schedule, config.scheduler, config.num_inference_steps, clip_sample=False)
        # The released code reads its maps at i = 49, one before the last of PNDM's 51 timesteps.
        last = len(process.timesteps) if config.compat == "paper" else config.num_inference_steps
        self._reading_step = last - 1
        self._rates = guidance_rates(
            config.layout_rate,
            config.guided_share,
            config.num_inference_steps,
            compat=config.compat,
            timesteps=len(process.timesteps),
        )

    @property
    def _where(self) -> str:
        return f"stage {self._stage}"

    def fill(self, batch: Batch) -> Batch:
        """Return the batch with images, soft masks and prompts; masks are the layout where there are some.

        Raises:
            PluginError: masks are of another size than the images to make, or empty.
            DataError: a prompt lacks a placeholder.
        """
        prompts = [prompt or PREFIX for prompt in batch.prompts or (None,) * len(batch)]
        encoded = self._encode(prompts, cases=batch.ids)
        placeholders = placeholder_places(self._base, encoded, prompts, where=self._where)
        tokens = torch.cat((placeholders, encoded.ends[:, None]), dim=1).to(self._context.device)
        layout = self._layout(batch)
        guide = LayoutGuide(
            self._base.unet,
            encoded.states,
            tokens,
            recorders=self._recorders,
            reading_step=self._reading_step,
            tau=self._config.tau,
            compat=self._config.compat,
            masks=layout,
            loss=self._loss(),
            rates=self._rates if layout is not None else (),
        )
        latents = sample_cases(self._base, encoded, batch.seeds, self._config, self._context, guide=guide)
        images = decode(self._base, latents, context=self._context)
        scores = {"layout_loss": guide.losses[-1].float()} if guide.losses else None
        return batch.with_columns(images=images, soft_masks=guide.soft_masks, prompts=prompts, scores=scores)

    def _layout(self, batch: Batch) -> Tensor | None:
        if batch.masks is None:
            return None
        edge = tuple(batch.masks.shape[2:])
        if edge != (self._size, self._size):
            raise PluginError(
                f"{self._where}: masks of {edge[0]} x {edge[1]} pixels for images of {self._size} x {self._size}; give "
                f"the stage that makes them size={self._size}"
            )
        empty = [case for case, mask in zip(batch.ids, batch.masks, strict=True) if not bool(mask.any())]
        if empty:
            raise PluginError(f"{self._where}: the mask of {empty[0]} is empty; a layout needs a lesion")
        return batch.masks.to(torch.float32)

    def _loss(self) -> LayoutLoss:
        config = self._config
        if config.layout_loss != "didgen":
            return LAYOUT_LOSSES[config.layout_loss]
        return DiDGenLoss(config.compat, config.use_cross, config.use_self, config.two_sided)
