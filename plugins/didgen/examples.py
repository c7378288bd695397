"""The training set as the networks see it: latents, masks and prompts that begin with the placeholders."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ...core.context import Context
from ...core.dataset import Dataset
from ...core.errors import DataError
from ..stable_diffusion.base import StableDiffusionBase
from ..stable_diffusion.kept import kept_captions, kept_latents
from ..stable_diffusion.latents import PosteriorLatents
from ..stable_diffusion.sampling import latent_size
from ..stable_diffusion.tokens import count_tokens
from .placeholders import PLACEHOLDERS, PREFIX

if TYPE_CHECKING:
    from .plugin import DiDGenTrainerConfig


@dataclass(frozen=True)
class Examples:
    """Everything that fine-tuning learns from, on the CPU.

    Attributes:
        dataset: images and masks at the trained size.
        latents: what the VAE says of the images.
        masked: (N,) bool, which images have a mask.
        prompts: one caption an image, with the placeholders.
    """

    dataset: Dataset
    latents: PosteriorLatents
    masked: Tensor
    prompts: Sequence[str]

    def __len__(self) -> int:
        return len(self.prompts)

    @property
    def size(self) -> int:
        """Edge of the images in pixels."""
        assert self.dataset.size is not None
        return self.dataset.size

    def masks(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """Return the masks (B, 1, S, S) of 0 and 1, zeros for an image that has none."""
        masks = torch.zeros(len(rows), 1, self.size, self.size)
        masked = self.masked[rows]
        if bool(masked.any()):
            chosen = [row for row in rows if self.masked[row]]
            masks[masked, 0] = torch.from_numpy(self.dataset.masks_array(chosen)).float()
        return masks.to(device)


def encoded_examples(
    base: StableDiffusionBase, dataset: Dataset, config: DiDGenTrainerConfig, context: Context, output: Path
) -> Examples:
    """Caption and encode the training set once, since the VAE and the images do not change; ``output`` keeps both.

    Images are neither mirrored nor cropped, since captions tell where the lesion is (ours).

    Raises:
        ConfigError: the size does not fit the base.
        DataError: an image has no caption, or one that is too long.
        StoreError, CheckpointError: what was kept is damaged or of other images.
    """
    dataset = dataset.resized(config.size)
    latent_size(base, config.size)
    captions = kept_captions(
        dataset, config.captioner, context, output, check=lambda captions: _check_lengths(base, dataset, captions)
    )
    latents = kept_latents(base, dataset, context, output)
    masked = torch.tensor([record.mask is not None for record in dataset.records])
    return Examples(dataset, latents, masked, [with_prefix(caption) for caption in captions])


def _check_lengths(base: StableDiffusionBase, dataset: Dataset, captions: Sequence[str]) -> None:
    places = base.text_encoder.config.max_position_embeddings
    prompts = [with_prefix(caption) for caption in captions]
    for image_id, prompt, count in zip(dataset.ids, prompts, count_tokens(base.tokenizer, prompts), strict=True):
        if count > places:
            raise DataError(
                f"image {image_id!r} has a caption of {count} tokens where the text encoder takes {places}: {prompt!r}"
            )


def with_prefix(caption: str) -> str:
    """Return the caption, behind the paper's prefix unless it names both placeholders itself."""
    return caption if all(token in caption for token in PLACEHOLDERS) else f"{PREFIX} {caption}"
