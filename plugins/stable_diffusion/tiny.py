"""A tiny Stable Diffusion base with random weights, for tests: real vocabulary and topology, made in a second."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from transformers import CLIPTextConfig, CLIPTextModel

from ..diffusion.schedule import NoiseSchedule, PredictionType
from .base import LATENT_CHANNELS, StableDiffusionBase, save_base
from .tokens import CONTEXT_LENGTH, clip_tokenizer

HEADS = {1: 2, 2: (2, 4, 4, 4)}
"""Attention heads a level: as many on every level in version 1; in version 2 as many as keep their width."""


def tiny_stable_diffusion(
    path: str | Path,
    *,
    seed: int = 0,
    latent_size: int = 16,
    downsampling: int = 8,
    version: Literal[1, 2] = 2,
    prediction_type: PredictionType = "epsilon",
) -> Path:
    """Write a base with random weights into the folder ``path`` and return it; load it with ``load_base``.

    The U-Net has Stable Diffusion's four levels with two blocks each, 16 to 32 channels wide: attention at the latents'
    resolution, a half and a quarter of it (two layers on the way down, three up) and an eighth (one layer).

    Args:
        seed: of the weights; equal seeds give equal files.
        latent_size: edge of the latents, a multiple of 8.
        downsampling: pixels along the edge of one latent, a power of two.
        version: of Stable Diffusion whose attention heads to copy, 1 or 2.

    Raises:
        ValueError: the sizes do not fit the levels.
        StoreError: the file system refuses.
    """
    if latent_size < 8 or latent_size % 8:
        raise ValueError(f"latent_size must be a multiple of 8, not {latent_size}")
    if downsampling < 1 or downsampling & (downsampling - 1):
        raise ValueError(f"downsampling must be a power of two, not {downsampling}")
    schedule = NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", prediction_type, 1, set_alpha_to_one=False)
    tokenizer = clip_tokenizer()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        text_encoder = _text_encoder(len(tokenizer))
        unet, vae = _unet(latent_size, version, text_encoder), _vae(latent_size, downsampling)
    folder = Path(path)
    save_base(StableDiffusionBase(unet, vae, text_encoder, tokenizer, schedule, folder), folder)
    return folder


def _text_encoder(tokens: int) -> CLIPTextModel:
    return CLIPTextModel(
        CLIPTextConfig(
            vocab_size=tokens,
            hidden_size=32,
            intermediate_size=64,
            num_hidden_layers=2,
            num_attention_heads=2,
            max_position_embeddings=CONTEXT_LENGTH,
            bos_token_id=tokens - 2,
            eos_token_id=tokens - 1,
        )
    )


def _unet(latent_size: int, version: Literal[1, 2], text_encoder: CLIPTextModel) -> UNet2DConditionModel:
    return UNet2DConditionModel(
        sample_size=latent_size,
        in_channels=LATENT_CHANNELS,
        out_channels=LATENT_CHANNELS,
        block_out_channels=(16, 32, 32, 32),
        down_block_types=("CrossAttnDownBlock2D",) * 3 + ("DownBlock2D",),
        up_block_types=("UpBlock2D",) + ("CrossAttnUpBlock2D",) * 3,
        layers_per_block=2,
        norm_num_groups=8,
        cross_attention_dim=text_encoder.config.hidden_size,
        attention_head_dim=HEADS[version],  # type: ignore[arg-type]
        use_linear_projection=version == 2,
    )


def _vae(latent_size: int, downsampling: int) -> AutoencoderKL:
    levels = downsampling.bit_length()
    return AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,  # type: ignore[arg-type]
        up_block_types=("UpDecoderBlock2D",) * levels,  # type: ignore[arg-type]
        block_out_channels=(8,) * levels,  # type: ignore[arg-type]
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=4,
        sample_size=latent_size * downsampling,
    )
