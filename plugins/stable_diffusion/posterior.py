"""What an autoencoder says of images: the one place where pixels become latents."""

from __future__ import annotations

from collections.abc import Iterable

from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.autoencoders.vae import DiagonalGaussianDistribution
from torch import Tensor

from ...core.errors import ConfigError


def downsampling(vae: AutoencoderKL) -> int:
    """Return how many pixels lie along the edge of one latent."""
    return 2 ** (len(vae.config["block_out_channels"]) - 1)


def check_sizes(vae: AutoencoderKL, sizes: Iterable[int]) -> None:
    """Look whether images with edges of ``sizes`` pixels have latents.

    Raises:
        ConfigError: a size is no multiple of the pixels along the edge of a latent.
    """
    edge = downsampling(vae)
    for size in sizes:
        if size < edge or size % edge:
            raise ConfigError(f"size = {size} is no multiple of {edge}, the pixels along the edge of a latent")


def posterior(vae: AutoencoderKL, images: Tensor) -> DiagonalGaussianDistribution:
    """Return the distribution of the latents (N, 4, H / f, W / f), f = :func:`downsampling`, not yet scaled.

    Its ``mean`` and ``std`` times ``vae.config["scaling_factor"]`` are those of what the U-Net takes. Gradients,
    precision and device are the caller's.

    Args:
        images: (N, 3, H, W) in [0, 1].

    Raises:
        ConfigError: the images' edges are no multiples of f.
    """
    check_sizes(vae, images.shape[2:])
    return vae.encode(2 * images - 1).latent_dist  # type: ignore[union-attr]
