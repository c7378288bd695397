from __future__ import annotations

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


@pytest.fixture
def tiny_base(tiny_folder):
    """A function that loads such a base anew."""

    def load(version: int = 2, prediction_type: str = "epsilon") -> StableDiffusionBase:
        return load_base(tiny_folder(version, prediction_type))

    return load
