"""Images from prompts alone."""

from __future__ import annotations

from typing import TYPE_CHECKING

from ....core.batch import Batch
from ....core.context import Context
from ....core.errors import ConfigError
from ..inference import ready_base
from ..prompts import PromptEncoder
from ..sampling import decode, latent_size, sample_cases
from .wording import labelled

if TYPE_CHECKING:
    from .plugin import TextToImageConfig


class ImageSampler:
    """A loaded base that turns prompts and seeds into images."""

    def __init__(self, config: TextToImageConfig, context: Context) -> None:
        """Load the base onto the context's device.

        Raises:
            CheckpointError: it cannot be used.
            ConfigError: the size does not fit it.
        """
        self._config, self._context = config, context
        self._base = ready_base(config.checkpoint, context, compile=config.compile)
        latent_size(self._base, config.size)
        self._encode = PromptEncoder(self._base)

    def fill(self, batch: Batch) -> Batch:
        """Return the batch with images and prompts.

        Raises:
            ConfigError: a case has neither a prompt nor what the setting ``prompt`` asks for.
        """
        config, context = self._config, self._context
        prompts = self._prompts(batch)
        encoded = self._encode(prompts, cases=batch.ids)
        latents = sample_cases(
            self._base, encoded, batch.seeds, config, context, negative_prompt=config.negative_prompt
        )
        return batch.with_columns(images=decode(self._base, latents, context=context), prompts=prompts)

    def _prompts(self, batch: Batch) -> list[str]:
        none = (None,) * len(batch)
        found = []
        for case, given, label in zip(batch.ids, batch.prompts or none, batch.labels or none, strict=True):
            prompt = given or labelled(self._config.prompt, label)
            if not prompt:
                lacking = "class" if self._config.prompt else "prompt"
                raise ConfigError(
                    f"stage {self._context.name}: {case} has no {lacking}; put a stage before this one that gives it "
                    'one, such as derm-prompt-sampler or class-balance, or set prompt="..."'
                )
            found.append(prompt)
        return found
