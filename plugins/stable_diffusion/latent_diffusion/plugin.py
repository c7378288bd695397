"""Trainer `latent-diffusion`: a small base of the Stable Diffusion kind, for machines that cannot load a large one.

Method: Rombach et al. 2022, "High-resolution image synthesis with latent diffusion models": an autoencoder, then
denoising in its latent space, conditioned on text by cross-attention. Sizes and training are ours, for two CPU
cores; the text encoder is trained with the U-Net, since no pretrained one is assumed. No weights come from elsewhere.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from ....core.config import PluginConfig
from ....core.hookspecs import hookimpl
from ....core.roles import Plugin, Trainer
from ..captioning import CaptionerName, check_captioner

if TYPE_CHECKING:
    from ....core.context import Context
    from ....core.dataset import Dataset

AUTOENCODER_GROUPS = 8
UNET_GROUPS = 16


class LatentDiffusionConfig(PluginConfig):
    """Settings of the trainer ``latent-diffusion``; all values are ours."""

    size: int = Field(128, ge=16, description="edge in pixels of the training images")
    flips: bool = Field(True, description="learn every image in four mirrored poses, each with its own caption")
    captioner: CaptionerName = Field(
        'derm-prompt(prefix="An image of lesion on skin.")',
        description="chain of annotators that caption the training images; empty: the data's own captions",
    )
    short_prompt: str = Field("An image of lesion on skin.", description="prompt that says nothing of the image")
    short_share: float = Field(0.1, ge=0, le=1, description="share of training prompts replaced by the short one")
    empty_share: float = Field(0.1, ge=0, le=1, description="share replaced by nothing, for classifier-free guidance")

    autoencoder_channels: tuple[int, ...] = Field(
        (32, 64, 96), min_length=2, description="channels per level; each further level halves the resolution"
    )
    autoencoder_steps: int = Field(4500, ge=1, description="optimisation steps of the autoencoder")
    autoencoder_batch_size: int = Field(4, ge=1, description="crops per step of the autoencoder")
    autoencoder_crop: int = Field(96, ge=8, description="edge in pixels of the random crops it learns on")
    autoencoder_learning_rate: float = Field(1e-3, gt=0, description="AdamW's base rate for the autoencoder")
    gradient_weight: float = Field(1.0, ge=0, description="weight of the image gradients' error against the pixels'")
    kl_weight: float = Field(1e-4, ge=0, description="weight of the KL divergence per latent value")

    text_width: int = Field(96, ge=32, multiple_of=32, description="channels of the text encoder")
    text_layers: int = Field(3, ge=1, description="layers of the text encoder")
    channels: tuple[int, ...] = Field(
        (64, 128, 192), min_length=2, description="channels per level of the U-Net, all with self- and cross-attention"
    )
    layers_per_block: int = Field(1, ge=1, description="ResNet and transformer blocks per level of the encoder")
    head_channels: int = Field(64, ge=8, description="channels of an attention head of the U-Net")

    steps: int = Field(3000, ge=1, description="optimisation steps of text encoder and U-Net")
    batch_size: int = Field(16, ge=1, description="latents per step")
    learning_rate: float = Field(1e-3, gt=0, description="AdamW's base rate, annealed by half a cosine")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay, of both trainings")
    warmup_steps: int = Field(100, ge=0, description="steps of linear warm-up, of both trainings")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient, of both trainings")
    ema_decay: float = Field(0.999, ge=0, lt=1, description="decay of the averaged weights, of both; 0: none")
    gamma: float = Field(
        5.0, gt=1, description="bound: the error of the velocity at a timestep weighs min(SNR + 1, gamma) / (SNR + 1)"
    )

    checkpoint_every: int = Field(250, ge=1, description="steps between resume points")
    snapshot_every: int = Field(500, ge=0, description="steps between pictures of samples; 0 for none")
    snapshot_count: int = Field(16, ge=1, description="samples in a picture")
    guidance_scale: float = Field(3.0, ge=0, description="classifier-free guidance of the pictures")
    licence: str = Field("not stated", description="licence of the training data, for the model card")

    @property
    def factor(self) -> int:
        """How many pixels a latent is wide."""
        return 2 ** (len(self.autoencoder_channels) - 1)

    @model_validator(mode="after")
    def _makes_networks(self) -> Self:
        deepest = self.factor * 2 ** (len(self.channels) - 1)
        if self.size % deepest:
            raise ValueError(f"size {self.size} must be a multiple of {deepest}, which the levels halve it down by")
        if self.autoencoder_crop > self.size or self.autoencoder_crop % self.factor:
            raise ValueError(
                f"autoencoder_crop {self.autoencoder_crop} must be a multiple of {self.factor} and at most {self.size}"
            )
        for key, groups in (("autoencoder_channels", AUTOENCODER_GROUPS), ("channels", UNET_GROUPS)):
            if any(channels < groups or channels % groups for channels in getattr(self, key)):
                raise ValueError(f"{key} must be multiples of {groups}, not {getattr(self, key)}")
        if any(channels % self.head_channels for channels in self.channels):
            raise ValueError(f"channels {self.channels} must be multiples of head_channels {self.head_channels}")
        if self.short_share + self.empty_share > 1:
            raise ValueError("short_share and empty_share are parts of one whole and must not exceed 1 together")
        return self


class LatentDiffusionTrainer(Trainer):
    """Trains an autoencoder, then a text encoder with a U-Net in its latent space; leaves a diffusers folder."""

    name = "latent-diffusion"
    Config = LatentDiffusionConfig

    def setup(self, context: Context) -> None:
        """Look the captioner up.

        Raises:
            ConfigError: a setting of it is wrong, or it is no annotator.
            PluginError: it is unknown or broken.
        """
        super().setup(context)
        check_captioner(self.config.captioner, context)

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        """Train on ``train``; the pictures of reconstructions show ``val`` where there is one."""
        from .training import train_base

        train_base(self.config, self.context, train, val, output)

    def evaluate(self, test: Dataset, output: Path) -> Mapping[str, float]:
        """Return ``reconstruction_psnr_db`` and ``prediction_error``, means over ``test``; per_image.csv has both."""
        from .evaluation import evaluate_base

        return evaluate_base(self.config, self.context, test, output)


@hookimpl
def register_plugins() -> Iterable[type[Plugin]]:
    """Return the trainer."""
    return [LatentDiffusionTrainer]
