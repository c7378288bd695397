from __future__ import annotations

import copy
from functools import cache
from pathlib import Path

import pytest

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
