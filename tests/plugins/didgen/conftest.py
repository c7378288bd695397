from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

import lesionforge as lf
from lesionforge.core.dataset import Dataset
from lesionforge.plugins.didgen.placeholders import add_placeholders
from lesionforge.plugins.stable_diffusion.base import load_base, save_base
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion
from lesionforge.testing import disc_dataset


@pytest.fixture(scope="session")
def tiny_base(tmp_path_factory) -> Path:
    """A random base for 32 px with latents of 8 x 8, without placeholders."""
    return tiny_stable_diffusion(tmp_path_factory.mktemp("base"), latent_size=8, downsampling=4)


@pytest.fixture(scope="session")
def tiny_model(tiny_base, tmp_path_factory) -> Path:
    """The same with placeholders, as trainer didgen leaves it, untrained but with attention that is not flat."""
    base = load_base(tiny_base)
    add_placeholders(base)
    for name, parameter in base.unet.named_parameters():
        if name.endswith("to_q.weight"):
            parameter.data *= 12
    folder = tmp_path_factory.mktemp("model")
    save_base(base, folder)
    return folder


@pytest.fixture(scope="session")
def phantoms() -> Dataset:
    """Phantoms with masks at 32 px, and captions that say nothing of where the lesion is."""
    data = lf.load_dataset("phantom(count=96, size=32, border_touch=0, hair=0, ruler=0, area_min=0.1)")
    return replace(data, records=tuple(replace(record, caption="A brown lesion.") for record in data.records))


def discs(count: int, size: int = 32) -> lf.Batch:
    return lf.Batch.blank(count).with_columns(masks=disc_dataset(count, size=size).fetch(range(count)).masks)
