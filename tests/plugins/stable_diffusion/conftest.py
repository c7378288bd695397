from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import UNet2DConditionModel

from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion


@pytest.fixture(scope="session")
def tiny_folder(tmp_path_factory: pytest.TempPathFactory):
    """A function that returns the folder of a tiny base of Stable Diffusion's version 1 or 2."""

    @cache
    def make(version: int = 2, prediction_type: str = "epsilon") -> Path:
        folder = tmp_path_factory.mktemp("tiny") / f"{version}-{prediction_type}"
        return tiny_stable_diffusion(folder, version=version, prediction_type=prediction_type)  # type: ignore[arg-type]

    return make


@pytest.fixture(scope="session")
def loaded_base(tiny_folder):
    """A function that returns such a base, loaded once: leave it as it is."""
    return cache(lambda version, prediction_type: load_base(tiny_folder(version, prediction_type)))


@pytest.fixture
def tiny_base(loaded_base):
    """A function that returns such a base of one's own."""

    def copied(version: int = 2, prediction_type: str = "epsilon") -> StableDiffusionBase:
        return copy.deepcopy(loaded_base(version, prediction_type))

    return copied


@pytest.fixture
def small_unet() -> UNet2DConditionModel:
    """Two levels with one attention block each, which compiles in seconds."""
    torch.manual_seed(0)
    return UNet2DConditionModel(
        sample_size=8,
        block_out_channels=(8, 16),
        down_block_types=("CrossAttnDownBlock2D", "DownBlock2D"),
        up_block_types=("UpBlock2D", "CrossAttnUpBlock2D"),
        mid_block_type=None,
        layers_per_block=1,
        norm_num_groups=4,
        cross_attention_dim=32,
        attention_head_dim=2,
    )
