from __future__ import annotations

from pathlib import Path

import pytest
import torch

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.plugins.skindualgen.plugin import SkinDualGenTrainer, SkinDualGenTrainerConfig
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion

CONTEXT = Context(torch.device("cpu"), "fp32", "tuning", 3)


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A random base for 32 px with latents of 8 x 8."""
    return tiny_stable_diffusion(tmp_path_factory.mktemp("base"), latent_size=8, downsampling=4)


@pytest.fixture(scope="session")
def phantoms() -> Dataset:
    """Phantoms of three classes with masks at 32 px."""
    return lf.load_dataset("phantom(count=48, size=32, border_touch=0, hair=0, ruler=0, area_min=0.1)")


@pytest.fixture(scope="session")
def settings(tiny_base):
    """A function that returns the trainer's configuration for the tiny base, in a few steps unless told otherwise."""

    def make(**changed) -> SkinDualGenTrainerConfig:
        values = {"base": str(tiny_base), "size": 32, "steps": 4, "batch_size": 2, "learning_rate": 1e-2}
        values |= {"snapshot_every": 0, "checkpoint_every": 2}
        return SkinDualGenTrainerConfig.model_validate({**values, **changed})

    return make


@pytest.fixture(scope="session")
def train():
    """A function that trains into a folder and returns it."""

    def run(config: SkinDualGenTrainerConfig, data: Dataset, output: Path) -> Path:
        output.mkdir(exist_ok=True)
        trainer = SkinDualGenTrainer(config)
        trainer.setup(CONTEXT)
        trainer.train(data, None, output)
        return output

    return run


@pytest.fixture(scope="session")
def adapter(settings, train, phantoms, tmp_path_factory) -> Path:
    """What a training of 40 steps on phantoms leaves: leave it as it is."""
    config = settings(steps=40, batch_size=4, checkpoint_every=1000)
    return train(config, phantoms.split("train"), tmp_path_factory.mktemp("adapter"))
