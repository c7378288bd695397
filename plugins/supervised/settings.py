"""Settings that every training with known answers has; no torch here, so that listing plugins stays fast."""

from __future__ import annotations

from typing import Literal

from pydantic import Field

from ...core.config import PluginConfig


class TrainingSettings(PluginConfig):
    """Optimiser, schedule, duration and augmentation."""

    optimizer: Literal["rmsprop", "adamw"] = Field("adamw", description="optimiser")
    momentum: float = Field(0.9, ge=0, lt=1, description="momentum of RMSprop")
    learning_rate: float = Field(1e-4, gt=0, description="base learning rate")
    weight_decay: float = Field(0.01, ge=0, description="weight decay (decoupled in AdamW)")
    schedule: Literal["cosine", "constant"] = Field("cosine", description="course of the learning rate")
    clip_norm: float = Field(1.0, ge=0, description="largest norm of the gradient; 0 for no clipping")
    epochs: int = Field(50, ge=1, le=100_000, description="passes over the training cases, unless steps is given")
    steps: int | None = Field(None, ge=1, description="optimisation steps; replaces epochs")
    batch_size: int = Field(32, ge=1, le=4096, description="cases in a batch")
    patience: int = Field(10, ge=0, description="stop after so many validations without a better one on val; 0: never")
    validate_every: int | None = Field(None, ge=1, description="steps between validations; once an epoch by default")
    checkpoint_every: int = Field(500, ge=1, description="steps between resumable checkpoints")
    flips: bool = Field(True, description="augmentation: mirror each axis of half the cases")
    rotation_degrees: float = Field(30.0, ge=0, le=180, description="augmentation: largest rotation either way")
    scale: float = Field(0.1, ge=0, le=0.9, description="augmentation: largest relative change of size")
    colour: float = Field(
        0.1, ge=0, le=0.9, description="augmentation: largest relative change of brightness, contrast and saturation"
    )
