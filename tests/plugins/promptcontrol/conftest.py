from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import lesionforge as lf
from lesionforge.core.dataset import Dataset
from lesionforge.plugins.promptcontrol.controlnet import fresh_controlnet, save_controlnet
from lesionforge.plugins.stable_diffusion.base import load_base
from lesionforge.plugins.stable_diffusion.fingerprint import base_fingerprint
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A random base for 32 px with latents of 8 x 8."""
    return tiny_stable_diffusion(tmp_path_factory.mktemp("base"), latent_size=8, downsampling=4)


@pytest.fixture(scope="session")
def fresh_model(tiny_base, tmp_path_factory) -> Path:
    """A checkpoint as training begins with it."""
    base, folder = load_base(tiny_base), tmp_path_factory.mktemp("fresh")
    save_controlnet(fresh_controlnet(base, 0), base_fingerprint(base), 32, folder)
    return folder


@pytest.fixture(scope="session")
def open_model(tiny_base, tmp_path_factory) -> Path:
    """A checkpoint whose zero convolutions let something through."""
    base, folder = load_base(tiny_base), tmp_path_factory.mktemp("open")
    network = fresh_controlnet(base, 0)
    middle, embedding = network.controlnet_mid_block, network.controlnet_cond_embedding.conv_out
    for block in (*network.controlnet_down_blocks, middle, embedding):
        block.weight.data.normal_(std=0.3)
    save_controlnet(network, base_fingerprint(base), 32, folder)
    return folder


@pytest.fixture(scope="session")
def phantoms() -> Dataset:
    """Phantoms with masks, labels and captions at 32 px."""
    data = lf.load_dataset("phantom(count=48, size=32, border_touch=0, hair=0, ruler=0, area_min=0.1)")
    return replace(data, records=tuple(replace(record, caption="A brown lesion.") for record in data.records))
