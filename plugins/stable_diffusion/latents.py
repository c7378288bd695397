"""A data set's images encoded once, for trainings in which neither the VAE nor the images change."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from ...core.context import Context
from ...core.dataset import Dataset, image_tensor
from .base import StableDiffusionBase
from .posterior import posterior

BATCH = 8


@dataclass(frozen=True)
class PosteriorLatents:
    """What the VAE says of N images, times its scaling factor, on the CPU.

    Attributes:
        means, deviations: (N, 4, h, w) fp32 of each latent's normal distribution.
    """

    means: Tensor
    deviations: Tensor

    def drawn(self, rows: Sequence[int], device: torch.device) -> Tensor:
        """Return latents (B, 4, h, w) of ``rows``, drawn by torch's random state."""
        means, deviations = self.means[rows], self.deviations[rows]
        latents = means + deviations * torch.randn(means.shape)
        return latents.to(device, memory_format=torch.channels_last)


@torch.no_grad()
def posterior_latents(base: StableDiffusionBase, dataset: Dataset, context: Context) -> PosteriorLatents:
    """Encode all images of ``dataset``, at its size, on the context's device; the VAE goes back to its own."""
    means, deviations = [], []
    home = base.vae.device
    base.vae.to(context.device)  # type: ignore[arg-type]
    with context.autocast():
        for first in range(0, len(dataset), BATCH):
            rows = range(first, min(first + BATCH, len(dataset)))
            encoded = posterior(base.vae, image_tensor(dataset.images_array(rows)).to(context.device))
            means.append(encoded.mean.float().cpu())
            deviations.append(encoded.std.float().cpu())
            context.progress(rows.stop, len(dataset), {})
    base.vae.to(home)  # type: ignore[arg-type]
    scale = base.vae.config["scaling_factor"]
    return PosteriorLatents(torch.cat(means) * scale, torch.cat(deviations) * scale)
