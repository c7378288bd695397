"""A base is known by its weights, wherever they lie."""

from __future__ import annotations

import torch

from lesionforge.plugins.stable_diffusion.base import load_base, save_base
from lesionforge.plugins.stable_diffusion.fingerprint import base_fingerprint
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion


def test_a_copy_is_the_same_base_and_one_changed_weight_makes_another(tmp_path):
    base = load_base(tiny_stable_diffusion(tmp_path / "base", latent_size=8, downsampling=4))
    save_base(base, tmp_path / "copy")
    copy = load_base(tmp_path / "copy")
    assert base_fingerprint(base) == base_fingerprint(copy)
    for network in (copy.unet, copy.vae, copy.text_encoder):
        before = base_fingerprint(copy)
        with torch.no_grad():
            next(network.parameters()).flatten()[0] += 1
        assert base_fingerprint(copy) != before
