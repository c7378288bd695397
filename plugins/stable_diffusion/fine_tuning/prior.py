"""The base's own images of a class, which keep a fine-tuned base from forgetting it (Ruiz et al. 2023, section 3.3)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....core.context import Context
from ....core.errors import DataError
from ....core.seeding import case_seed
from ....core.training_state import STATE_FOLDER
from ..base import StableDiffusionBase
from ..kept import kept_tensors
from ..samples import save_samples
from ..sampling import decode, sample
from .wording import labelled

if TYPE_CHECKING:
    from .plugin import FineTuningConfig

BATCH = 8
LATENTS = Path(STATE_FOLDER, "prior.safetensors")
STREAM = "prior"


@dataclass(frozen=True)
class Prior:
    """What the base drew of the class.

    Attributes:
        latents: (N, 4, h, w) fp32 on the CPU, as the base's sampler left them, never decoded and encoded again.
        prompts: one a latent.
    """

    latents: Tensor
    prompts: list[str]

    def drawn(self, count: int, device: torch.device) -> tuple[Tensor, list[str]]:
        """Return ``count`` latents and their prompts, chosen by torch's random state."""
        rows = torch.randint(len(self.prompts), (count,)).tolist()
        latents = self.latents[rows].to(device, memory_format=torch.channels_last)
        return latents, [self.prompts[row] for row in rows]


def prior_prompts(config: FineTuningConfig, classes: Sequence[str]) -> list[str]:
    """Return one prompt for each image of the prior; where it names the class, all classes in turn.

    Raises:
        DataError: it names the class and the data have none.
    """
    named = [labelled(config.prior_prompt, label) for label in classes or [None]]
    prompts = [prompt for prompt in named if prompt is not None]
    if not prompts:
        raise DataError(f"prior_prompt = {config.prior_prompt!r} names the class, but no training image has a label")
    return [prompts[number % len(prompts)] for number in range(config.prior_count)]


def kept_prior(
    base: StableDiffusionBase, config: FineTuningConfig, prompts: list[str], context: Context, output: Path
) -> Prior:
    """Return the prior, kept in ``output`` until the job is done, with a picture of its first images in ``prior/``.

    Args:
        base: as it was loaded, on the context's device.
    """

    def drawn() -> dict[str, Tensor]:
        parts = []
        for first in range(0, len(prompts), BATCH):
            rows = range(first, min(first + BATCH, len(prompts)))
            parts.append(_sampled(base, config, [prompts[row] for row in rows], rows, context).cpu())
            context.progress(rows.stop, len(prompts), {})
        latents = torch.cat(parts)
        shown = latents[: config.snapshot_count]
        images = decode(base, shown.to(context.device), context=context)
        save_samples(images, prompts[: len(shown)], output / "prior", 0)
        return {"latents": latents}

    return Prior(kept_tensors(output / LATENTS, drawn, len(prompts))["latents"], prompts)


def _sampled(
    base: StableDiffusionBase, config: FineTuningConfig, prompts: list[str], numbers: range, context: Context
) -> Tensor:
    return sample(
        base,
        prompts,
        [case_seed(context.seed, number) for number in numbers],
        context=context,
        steps=config.prior_steps,
        guidance_scale=config.prior_guidance_scale,
        size=config.size,
        stream=STREAM,
    )
