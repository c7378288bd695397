"""A whole recipe with the native kernels and without: the same cases, within the tolerance of rounding."""

from __future__ import annotations

import sys
from pathlib import Path

import numpy as np
import pytest

from lesionforge.core.recipe import Recipe
from lesionforge.core.run import Run
from lesionforge.kernels import native
from lesionforge.plugins.didgen.placeholders import add_placeholders
from lesionforge.plugins.stable_diffusion.base import load_base, save_base
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion
from lesionforge.testing import disc_dataset

pytestmark = pytest.mark.skipif(native.why_missing() is not None, reason="the native module is not built")

ENHANCED_DDPM = """
name = "small-ddpm"
[train.generator]
use = "ddpm"
size = 32
width = 16
multipliers = [1, 2]
attention_levels = []
steps = 2
snapshot_every = 0
[synthesis]
count = 4
batch_size = 4
precision = "{precision}"
[[stage]]
use = "ddpm"
checkpoint = "train:generator"
scheduler = "ddim"
num_inference_steps = 3
"""

DIDGEN = """
name = "small-didgen"
[synthesis]
count = 4
batch_size = 4
precision = "{precision}"
[[stage]]
use = "real-masks"
size = 32
[[stage]]
use = "didgen"
checkpoint = "{base}"
num_inference_steps = 4
cross_factor = 2
self_factor = 1
layout_rate = 2.0
[[stage]]
use = "attention-mask"
[[stage]]
use = "mask-quality"
"""


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A random base with attention that is not flat."""
    folder = tmp_path_factory.mktemp("base")
    made = load_base(tiny_stable_diffusion(folder / "plain", latent_size=8, downsampling=4))
    add_placeholders(made)
    for name, parameter in made.unet.named_parameters():
        if name.endswith("to_q.weight"):
            parameter.data *= 12
    save_base(made, folder / "model")
    return folder / "model"


@pytest.mark.parametrize(("precision", "levels"), [("fp32", 1), ("bf16", 13)])
@pytest.mark.parametrize("text", [ENHANCED_DDPM, DIDGEN], ids=["enhanced-ddpm", "didgen"])
def test_a_recipe_makes_the_same_cases_without_native_kernels(
    text: str, precision: str, levels: int, base: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Images agree to `levels` of 255, masks in float32 on 99 of 100 pixels: an untrained network's map is nearly flat,
    and in bfloat16 its threshold turns on the last bits."""
    (tmp_path / "recipe.toml").write_text(text.format(precision=precision, base=base))
    recipe = Recipe.load(tmp_path / "recipe.toml")

    def run(name: str) -> Run:
        return recipe.run(output=tmp_path / name, data=disc_dataset(), device="cpu", report=False)

    with_native = run("with")
    monkeypatch.setitem(sys.modules, "lesionforge._native", None)
    native._load.cache_clear()
    try:
        without = run("without")
    finally:
        native._load.cache_clear()
    pairs = list(zip(with_native.cases(), without.cases(), strict=True))
    assert len(pairs) == 4
    for one, other in pairs:
        assert one.id == other.id and one.prompt == other.prompt
        assert np.abs(one.image.astype(int) - other.image.astype(int)).max() <= levels
        if one.mask is not None and precision == "fp32":
            assert (one.mask != other.mask).mean() <= 0.01
