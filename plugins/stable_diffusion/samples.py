"""Samples drawn while a base learns: always the same cases, so that pictures of several steps can be compared."""

from __future__ import annotations

import io
import textwrap
from collections.abc import Callable, Sequence
from pathlib import Path

from PIL import Image
from torch import Tensor, nn

from ...core.context import Context
from ...core.durable import write_bytes
from ...core.pictures import contact_sheet
from ...core.seeding import case_seed
from .base import StableDiffusionBase
from .sampling import decode, sample

SAMPLING_STEPS = 25
CAPTION_COLUMNS = 26
CAPTION_LINES = 4


class SampleSheets:
    """Draws one sample for each of some prompts, spread evenly over the training images, by DDIM and guidance.

    Args:
        assembled: returns the base with the network that is given to :meth:`take`.
        prompts: of all training images.
        size: edge of the samples in pixels.
        unsaid: what captions in the picture leave out at the beginning of a prompt.
    """

    def __init__(
        self,
        assembled: Callable[[nn.Module], StableDiffusionBase],
        prompts: Sequence[str],
        context: Context,
        folder: Path,
        *,
        count: int,
        size: int,
        guidance_scale: float,
        unsaid: str = "",
    ) -> None:
        count = min(count, len(prompts))
        self._prompts = [prompts[number * len(prompts) // count] for number in range(count)]
        self._assembled, self._context, self._folder = assembled, context, folder
        self._size, self._guidance_scale, self._unsaid = size, guidance_scale, unsaid

    def take(self, network: nn.Module, step: int) -> None:
        """Draw the samples and write them to ``step-NNNNNN.png``."""
        base = self._assembled(network)
        latents = sample(
            base,
            self._prompts,
            [case_seed(self._context.seed, number) for number in range(len(self._prompts))],
            context=self._context,
            steps=SAMPLING_STEPS,
            guidance_scale=self._guidance_scale,
            size=self._size,
            stream="samples",
        )
        images = decode(base, latents, context=self._context)
        words = [prompt.removeprefix(self._unsaid).strip() for prompt in self._prompts]
        save_samples(images, words, self._folder, step)


def save_samples(images: Tensor, captions: Sequence[str], folder: Path, step: int) -> None:
    """Write ``step-NNNNNN.png``: (N, 3, H, W) images in [0, 1] with their captions below."""
    lines = ["\n".join(textwrap.wrap(caption, CAPTION_COLUMNS)[:CAPTION_LINES]) for caption in captions]
    tile = max(images.shape[-1], 160)
    save_sheet(contact_sheet(levels(images), captions=lines, tile=tile, title=f"step {step}"), folder, step)


def levels(images: Tensor) -> list:
    """Return (N, 3, H, W) images in [0, 1] as N arrays (H, W, 3) uint8."""
    return list(images.clamp(0, 1).mul(255).round().byte().permute(0, 2, 3, 1).cpu().numpy())


def save_sheet(sheet: Image.Image, folder: Path, step: int) -> None:
    """Write ``step-NNNNNN.png`` into ``folder``, which need not be there."""
    folder.mkdir(exist_ok=True)
    picture = io.BytesIO()
    sheet.save(picture, "PNG")
    write_bytes(folder / f"step-{step:06d}.png", picture.getvalue())
