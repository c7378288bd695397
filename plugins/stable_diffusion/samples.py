"""Samples drawn while a base learns: always the same cases, so that pictures of several steps can be compared."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from torch import nn

from ....core.context import Context
from ....core.seeding import case_seed
from ..base import StableDiffusionBase
from ..sampling import decode, sample
from .networks import TextConditionedDenoiser
from .pictures import save_samples

if TYPE_CHECKING:
    from .plugin import LatentDiffusionConfig

SAMPLING_STEPS = 25


class SampleSheets:
    """Draws one sample for each of some captions, spread evenly over the training images, by DDIM and guidance."""

    def __init__(
        self,
        assembled: Callable[[TextConditionedDenoiser], StableDiffusionBase],
        captions: list[str],
        config: LatentDiffusionConfig,
        context: Context,
        folder: Path,
    ) -> None:
        count = min(config.snapshot_count, len(captions))
        self._captions = [captions[number * len(captions) // count] for number in range(count)]
        self._assembled, self._config, self._context, self._folder = assembled, config, context, folder

    def take(self, network: nn.Module, step: int) -> None:
        """Draw the samples and write them to ``step-NNNNNN.png``."""
        assert isinstance(network, TextConditionedDenoiser)
        base = self._assembled(network)
        seeds = [case_seed(self._context.seed, number) for number in range(len(self._captions))]
        latents = sample(
            base,
            self._captions,
            seeds,
            context=self._context,
            steps=SAMPLING_STEPS,
            guidance_scale=self._config.guidance_scale,
            stream="samples",
        )
        images = decode(base, latents, context=self._context)
        words = [caption.removeprefix(self._config.short_prompt).strip() for caption in self._captions]
        save_samples(2 * images - 1, words, self._folder, step)
