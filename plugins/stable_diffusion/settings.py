"""Settings that methods on a Stable Diffusion base share; no torch here, so that listing plugins stays fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...core.config import Checkpoint, PluginConfig

BASE = "Stable Diffusion base: hub name, diffusers folder, builtin:NAME, train:NAME"
Scheduler = Literal["ddim", "pndm", "ddpm", "dpm-solver++", "sde-dpm-solver++"]


class TuningSettings(PluginConfig):
    """What every training on a base can be told; each trainer says what is its paper's."""

    base: Checkpoint = Field(description=BASE)
    size: int = Field(512, ge=16, description="edge in pixels of the training images")
    steps: int = Field(20_000, ge=1, description="optimisation steps")
    batch_size: int = Field(4, ge=1, description="images per step")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's rate, constant after a warm-up where there is one")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    gradient_checkpointing: bool = Field(False, description="compute activations again and save their memory")
    checkpoint_every: int = Field(1000, ge=1, description="steps between resume points")


class SamplingSettings(PluginConfig):
    """How every generator on a base draws; each says where its defaults are others."""

    checkpoint: Checkpoint = Field(description="diffusers folder, train:NAME, builtin:NAME or hub name")
    size: int | None = Field(None, ge=8, description="edge in pixels of the images; default the base's own")
    scheduler: Scheduler = Field("ddim", description="way from noise to image")
    num_inference_steps: int = Field(50, ge=1, description="steps of the scheduler")
    guidance_scale: float = Field(7.5, ge=0, description="classifier-free guidance")
    compile: bool = Field(False, description="compile the U-Net; worth it for hundreds of cases, slow for a few")
