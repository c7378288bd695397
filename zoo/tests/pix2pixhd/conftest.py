from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

import lesionforge as lf
from lesionforge_zoo.pix2pixhd.plugin import Pix2PixHDTrainer, Pix2PixHDTrainerConfig

TINY = {
    "size": 32,
    "width": 8,
    "downsamplings": 2,
    "blocks": 1,
    "enhancer_blocks": 1,
    "discriminators": 2,
    "discriminator_width": 8,
    "discriminator_halvings": 2,
    "coarse_steps": 2,
    "enhancer_steps": 2,
    "steps": 2,
    "batch_size": 4,
    "learning_rate": 1e-3,
    "snapshot_every": 0,
}
Settings = Callable[..., Pix2PixHDTrainerConfig]
Train = Callable[..., Path]


@pytest.fixture(scope="session")
def settings() -> Settings:
    """A configuration that trains in a second, with changes."""
    return lambda **changed: Pix2PixHDTrainerConfig(**{**TINY, **changed})


@pytest.fixture(scope="session")
def train(settings: Settings) -> Train:
    """Training of a tiny network on a dataset into a folder, on the CPU with seed 3."""

    def trained(data: lf.Dataset, output: Path, **changed: Any) -> Path:
        output.mkdir(exist_ok=True)
        trainer = Pix2PixHDTrainer(settings(**changed))
        trainer.setup(lf.Context(torch.device("cpu"), "fp32", "painter", 3))
        trainer.train(data, None, output)
        return output

    return trained


@pytest.fixture(scope="session")
def phantoms() -> lf.Dataset:
    """Phantoms with masks and labels, each lesion well inside its image."""
    return lf.load_dataset("phantom(count=48, size=32, border_touch=0, hair=0, ruler=0, area_min=0.1)")


@pytest.fixture(scope="session")
def checkpoint(train: Train, phantoms: lf.Dataset, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator with its enhancer."""
    return train(phantoms, tmp_path_factory.mktemp("painter"))


@pytest.fixture(scope="session")
def classes_checkpoint(train: Train, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A tiny generator without enhancer that knows the classes of the discs."""
    from lesionforge.testing import disc_dataset

    return train(disc_dataset(), tmp_path_factory.mktemp("classes"), classes=True, enhancer=False, steps=20)
