"""The three networks of a small base, with fresh weights that depend on the seed alone, and their noise schedule."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, TypeVar

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.downsampling import Downsample2D
from diffusers.models.resnet import ResnetBlock2D
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from diffusers.models.upsampling import Upsample2D
from torch import Tensor, nn
from transformers import CLIPTextConfig, CLIPTextModel

from ....core.seeding import name_seed
from ...diffusion.schedule import NoiseSchedule
from ..base import LATENT_CHANNELS
from ..tokens import CONTEXT_LENGTH
from .plugin import AUTOENCODER_GROUPS, UNET_GROUPS

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from .plugin import LatentDiffusionConfig

TEXT_HEAD_CHANNELS = 32
CHROMA_GAIN = 4.0
LOG_VARIANCE = -4.0
SCHEDULE = NoiseSchedule(1000, 1e-4, 0.02, prediction_type="v_prediction", steps_offset=1, set_alpha_to_one=False)
"""Betas of Ho et al. 2020, section 4. Stable Diffusion's leave 0.5 % of the signal's variance at the end, and with it
an image's mean colour, which samples then lack; these leave 0.004 %."""
Network = TypeVar("Network", bound=nn.Module)


class TextConditionedDenoiser(nn.Module):
    """Text encoder and U-Net as one network, so that one loop trains, averages and resumes both."""

    def __init__(self, text_encoder: CLIPTextModel, unet: UNet2DConditionModel) -> None:
        super().__init__()
        self.text_encoder, self.unet = text_encoder, unet

    def forward(self, noisy: Tensor, timesteps: Tensor, tokens: Tensor) -> Tensor:
        """Return what is predicted of ``noisy`` (N, C, h, w) at ``timesteps`` (N,) for ``tokens`` (N, 77) int64."""
        states = self.text_encoder(tokens).last_hidden_state
        return self.unet(noisy, timesteps, states).sample


class Autoencoder(nn.Module):
    """diffusers' autoencoder with a forward pass that also returns the posterior, which its loss needs."""

    def __init__(self, vae: AutoencoderKL) -> None:
        super().__init__()
        self.vae = vae

    def forward(self, images: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Return the decoded posterior sample, and the posterior's mean and log-variance, for (N, 3, H, W) images."""
        posterior = self.vae.encode(images).latent_dist  # type: ignore[union-attr]
        decoded = self.vae.decode(posterior.sample()).sample  # type: ignore[union-attr]
        return decoded, posterior.mean, posterior.logvar


def fresh_autoencoder(config: LatentDiffusionConfig, seed: int) -> AutoencoderKL:
    """Return an untrained autoencoder without attention, which begins as a shallow codec (ours).

    Residual branches begin at 0, resampling as averaging and repetition. The first convolution sees chroma enlarged,
    and posteriors begin narrow: most variance of skin is brightness, and otherwise colours come last.
    """
    levels = len(config.autoencoder_channels)
    vae = _seeded(
        lambda: AutoencoderKL(
            sample_size=config.size,
            block_out_channels=config.autoencoder_channels,  # type: ignore[arg-type]
            down_block_types=("DownEncoderBlock2D",) * levels,  # type: ignore[arg-type]
            up_block_types=("UpDecoderBlock2D",) * levels,  # type: ignore[arg-type]
            layers_per_block=1,
            latent_channels=LATENT_CHANNELS,
            norm_num_groups=AUTOENCODER_GROUPS,
            mid_block_add_attention=False,
        ),
        seed,
        "autoencoder",
    )
    _begin_shallow(vae)
    return vae


def fresh_denoiser(config: LatentDiffusionConfig, tokenizer: CLIPTokenizer, seed: int) -> TextConditionedDenoiser:
    """Return an untrained text encoder and U-Net, which has self- and cross-attention on every level."""
    levels = len(config.channels)
    text = CLIPTextConfig(
        vocab_size=len(tokenizer),
        hidden_size=config.text_width,
        intermediate_size=4 * config.text_width,
        projection_dim=config.text_width,
        num_hidden_layers=config.text_layers,
        num_attention_heads=config.text_width // TEXT_HEAD_CHANNELS,
        max_position_embeddings=CONTEXT_LENGTH,
        bos_token_id=tokenizer.bos_token_id,  # type: ignore[arg-type]
        eos_token_id=tokenizer.eos_token_id,  # type: ignore[arg-type]
        pad_token_id=tokenizer.pad_token_id,  # type: ignore[arg-type]
    )
    return _seeded(
        lambda: TextConditionedDenoiser(
            CLIPTextModel(text),
            UNet2DConditionModel(
                sample_size=config.size // config.factor,
                in_channels=LATENT_CHANNELS,
                out_channels=LATENT_CHANNELS,
                block_out_channels=config.channels,
                down_block_types=("CrossAttnDownBlock2D",) * levels,
                up_block_types=("CrossAttnUpBlock2D",) * levels,
                layers_per_block=config.layers_per_block,
                cross_attention_dim=config.text_width,
                # diffusers reads this as the number of heads, whatever it is called.
                attention_head_dim=tuple(channels // config.head_channels for channels in config.channels),  # type: ignore[arg-type]
                norm_num_groups=UNET_GROUPS,
                use_linear_projection=True,
            ),
        ),
        seed,
        "denoiser",
    )


@torch.no_grad()
def _begin_shallow(vae: AutoencoderKL) -> None:
    grey = torch.full((3, 3), 1 / 3)
    mixing = grey + CHROMA_GAIN * (torch.eye(3) - grey)
    first = vae.encoder.conv_in.weight
    first.copy_(torch.einsum("oikl,ij->ojkl", first, mixing))
    assert vae.quant_conv is not None and vae.quant_conv.bias is not None
    vae.quant_conv.bias[LATENT_CHANNELS:] = LOG_VARIANCE
    vae.quant_conv.weight[LATENT_CHANNELS:] *= 0.1
    for module in vae.modules():
        if isinstance(module, ResnetBlock2D):
            module.conv2.weight.zero_()
            module.conv2.bias.zero_()  # type: ignore[union-attr]
        elif isinstance(module, Upsample2D):
            nn.init.dirac_(module.conv.weight)  # type: ignore[union-attr]
        elif isinstance(module, Downsample2D):
            # diffusers pads right and below: the first two taps of three cover the pixels to be averaged.
            weight, channels = torch.zeros_like(module.conv.weight), torch.arange(module.channels)  # type: ignore[arg-type]
            weight[channels, channels, :2, :2] = 0.25
            module.conv.weight.copy_(weight)  # type: ignore[operator]


def _seeded(make: Callable[[], Network], seed: int, name: str) -> Network:
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(name_seed(str(seed), name) >> 1)
        return make()
