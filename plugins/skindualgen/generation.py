"""Image-mask pairs from class prompts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.batch import Batch
from ...core.context import Context
from ...core.errors import ConfigError
from ...kernels import seeded_uniform, stream_of
from ..data.icd11 import Terms
from ..stable_diffusion.inference import made_ready
from ..stable_diffusion.prompts import PromptEncoder
from ..stable_diffusion.sampling import decoded_channels, latent_size, sample_cases
from .checkpoint import load_adapted
from .widening import COLOURS
from .wording import class_prompt

if TYPE_CHECKING:
    from .plugin import SkinDualGenGeneratorConfig


class PairSampler:
    """A loaded base with its adapter that turns seeds and classes, or prompts, into images and masks."""

    def __init__(self, config: SkinDualGenGeneratorConfig, context: Context) -> None:
        """Load base and adapter onto the context's device.

        Raises:
            CheckpointError: one of them is missing or damaged, or the adapter belongs to another base.
            ConfigError: a class is unknown to the adapter, or the size does not fit the base.
        """
        self._config, self._context = config, context
        base, card = load_adapted(Path(config.checkpoint), config.base)
        self._classes = card.classes
        self._terms: Terms = card.terms
        self._known(config.labels)
        latent_size(base, config.size)
        self._base = made_ready(base, context, compile=config.compile)
        self._encode = PromptEncoder(self._base)

    def fill(self, batch: Batch) -> Batch:
        """Return the batch with images, masks, soft masks, labels and prompts.

        Raises:
            ConfigError: a case's class is unknown to the adapter.
        """
        config, context = self._config, self._context
        labels, prompts = self._labels_and_prompts(batch)
        encoded = self._encode(prompts, cases=batch.ids)
        latents = sample_cases(self._base, encoded, batch.seeds, config, context)
        channels = decoded_channels(self._base, latents, context=context)
        images = ((channels[:, :COLOURS] + 1) / 2).clamp(0, 1).contiguous()
        soft_masks = channels[:, COLOURS:].sigmoid().contiguous()
        masks = (soft_masks >= config.threshold).to(soft_masks.dtype)
        return batch.with_columns(images=images, masks=masks, soft_masks=soft_masks, labels=labels, prompts=prompts)

    def _labels_and_prompts(self, batch: Batch) -> tuple[Sequence[str | None], list[str]]:
        """Return each case's class, None where a prompt came without one, and the prompt it is drawn from."""
        given = batch.prompts or (None,) * len(batch)
        labels = [
            label if label or prompt else drawn
            for label, prompt, drawn in zip(self._given(batch), given, self._drawn(batch), strict=True)
        ]
        self._known([label for label, prompt in zip(labels, given, strict=True) if label and not prompt])
        pairs = zip(given, labels, strict=True)
        return labels, [prompt or class_prompt(label or "", self._terms) for prompt, label in pairs]

    def _given(self, batch: Batch) -> Sequence[str | None]:
        none = (None,) * len(batch)
        return none if self._config.labels else batch.labels or none

    def _drawn(self, batch: Batch) -> list[str]:
        choices = self._config.labels or self._classes
        stream = stream_of(f"{self._context.name}/labels")
        draws = seeded_uniform(batch.seeds, (1,), stream=stream)[:, 0].tolist()
        return [choices[int(draw * len(choices))] for draw in draws]

    def _known(self, labels: Sequence[str]) -> None:
        for label in labels:
            if label not in self._classes:
                raise ConfigError(
                    f"stage {self._context.name}: class {label!r} is unknown to {self._config.checkpoint}; it knows "
                    f"{', '.join(self._classes)}"
                )
