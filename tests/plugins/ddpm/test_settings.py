"""Settings that contradict each other show when they are read, before any training."""

from __future__ import annotations

import pytest

from lesionforge.core.chain import Chain
from lesionforge.core.errors import ConfigError
from lesionforge.core.recipe import Job, Recipe


@pytest.mark.parametrize(
    ("settings", "said"),
    [
        ("eta=0.5", "eta belongs to scheduler ddim, not ddpm"),
        ('variance="beta", scheduler="ddim"', "variance belongs to scheduler ddpm, not ddim"),
    ],
)
def test_a_setting_of_another_scheduler_is_refused(settings, said):
    with pytest.raises(ConfigError, match=f"stage ddpm: {said}"):
        Chain.parse(f'ddpm(checkpoint="train:base", {settings})').configs()


@pytest.mark.parametrize(
    ("values", "said"),
    [
        ({"beta_start": 0.1}, r"beta_start 0\.1 must not exceed beta_end 0\.02"),
        ({"attention_levels": [5]}, "attention_levels go from 1 to 4, not 5"),
    ],
)
def test_a_network_that_cannot_be_built_is_refused(values, said):
    with pytest.raises(ConfigError, match=f"training base: {said}"):
        Recipe(jobs=(Job("base", "ddpm", values=values),)).resolved()
