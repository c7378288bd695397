"""From settings to optimiser, schedule, augmentation and the one training loop."""

from __future__ import annotations

import math
from pathlib import Path

import torch
from torch import Tensor, nn

from ...core.context import Context
from ...core.errors import ConfigError, first_line
from ...core.training import TrainingLoop, constant_rate, cosine_rate
from ..data.augmentation import Augmentation
from .settings import TrainingSettings


def supervised_loop(
    settings: TrainingSettings, model: nn.Module, *, examples: int, output: Path, context: Context
) -> TrainingLoop:
    """Return the loop that trains all of ``model`` on ``examples`` cases as ``settings`` say."""
    steps = training_steps(settings, examples)
    return TrainingLoop(
        model=model,
        optimizer=make_optimizer(settings, model),
        output=output,
        context=context,
        steps=steps,
        batch_size=settings.batch_size,
        examples=examples,
        rate=constant_rate if settings.schedule == "constant" else cosine_rate(steps, warmup_steps=0),
        clip_norm=settings.clip_norm or None,
        checkpoint_every=settings.checkpoint_every,
    )


def epoch_steps(settings: TrainingSettings, examples: int) -> int:
    """Return the number of steps that see every case once."""
    return math.ceil(examples / settings.batch_size)


def training_steps(settings: TrainingSettings, examples: int) -> int:
    """Return how many steps the training has."""
    return settings.steps or settings.epochs * epoch_steps(settings, examples)


def validation_steps(settings: TrainingSettings, examples: int) -> int:
    """Return the number of steps between two validations: an epoch, unless the settings say otherwise."""
    return settings.validate_every or min(epoch_steps(settings, examples), training_steps(settings, examples))


def make_optimizer(settings: TrainingSettings, model: nn.Module) -> torch.optim.Optimizer:
    """Return the optimiser that ``settings`` name over all parameters."""
    parameters, rate, decay = model.parameters(), settings.learning_rate, settings.weight_decay
    if settings.optimizer == "adamw":
        return torch.optim.AdamW(parameters, lr=rate, weight_decay=decay)
    return torch.optim.RMSprop(parameters, lr=rate, weight_decay=decay, momentum=settings.momentum)


def make_augmentation(settings: TrainingSettings) -> Augmentation:
    """Return the augmentation that ``settings`` describe."""
    return Augmentation(
        flips=settings.flips, rotation_degrees=settings.rotation_degrees, scale=settings.scale, colour=settings.colour
    )


def batch_rows(rows: list[int]) -> list[int]:
    """Return the rows to train on: batch norm over a 1x1 map has no variance with a lone case, so it comes twice."""
    return rows * 2 if len(rows) == 1 else rows


def check_input(network: nn.Module, size: int, *, name: str) -> None:
    """Put ``network`` into evaluation mode and raise a ConfigError where it cannot take images of ``size`` pixels."""
    blank: Tensor = torch.zeros(1, 3, size, size)
    try:
        with torch.no_grad():
            network.eval()(blank)
    except (AssertionError, RuntimeError, ValueError) as error:
        raise ConfigError(f"{name} cannot take images of {size} pixels: {first_line(error)}") from error
