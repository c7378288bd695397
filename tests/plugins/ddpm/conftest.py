from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lesionforge.plugins.ddpm.checkpoint import ModelCard, TrainedModel, save_checkpoint
from lesionforge.plugins.ddpm.unet import DilatedUNet2D
from lesionforge.plugins.diffusion.schedule import NoiseSchedule

TINY_SIZE = 16


@pytest.fixture(autouse=True)
def computed_on_one_thread(one_thread):
    pass


@pytest.fixture(scope="session")
def tiny_network() -> Callable[..., DilatedUNet2D]:
    """Make a small network with weights that are all alive: fresh ones predict zero."""

    def make(channels: int = 3, num_classes: int = 0, **settings: object) -> DilatedUNet2D:
        defaults = {"sample_size": TINY_SIZE, "width": 8, "multipliers": (1, 2), "blocks_per_level": 1}
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(1)
            network = DilatedUNet2D(
                in_channels=channels, out_channels=channels, num_classes=num_classes, **{**defaults, **settings}
            )
            for parameter in network.parameters():
                torch.nn.init.normal_(parameter, std=0.15)
        return network.eval()

    return make


@pytest.fixture(scope="session")
def tiny_checkpoint(tmp_path_factory, tiny_network) -> Callable[..., Path]:
    """Make the folder of a small model, trained or not."""

    def make(mode: str = "image", classes: tuple[str, ...] = (), timesteps: int = 40) -> Path:
        folder = tmp_path_factory.mktemp("ddpm")
        network = tiny_network(4 if mode == "joint" else 3, len(classes))
        card = ModelCard(mode, TINY_SIZE, classes, "discs", True)
        save_checkpoint(TrainedModel(network, NoiseSchedule(timesteps), card), folder)
        return folder

    return make
