"""Generator skindualgen: pairs from class prompts, cases that are their own, adapters on the wrong base."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch

import lesionforge as lf
from lesionforge.core.errors import CheckpointError, ConfigError
from lesionforge.plugins.skindualgen.checkpoint import load_adapted
from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion
from lesionforge.testing import assert_contract

STEPS = "num_inference_steps=2"


def opened(adapter: Path, settings: str = ""):
    chain = lf.Chain.parse(f"skindualgen(checkpoint='{adapter}', {STEPS}{settings})")
    return chain.open(device="cpu", precision="fp32")[0]


@pytest.fixture
def damaged(adapter, tmp_path) -> Path:
    """A copy of the adapter to spoil."""
    return Path(shutil.copytree(adapter, tmp_path / "copy", ignore=shutil.ignore_patterns("state")))


def test_the_contract_holds(adapter):
    assert_contract(f"skindualgen(checkpoint='{adapter}', {STEPS})", role="generator")


def test_masks_are_the_fourth_channel_through_a_sigmoid_at_one_half(adapter):
    stage = opened(adapter)
    batch = stage(lf.Batch.blank(3))
    assert batch.images.shape == (3, 3, 32, 32) and batch.soft_masks.shape == batch.masks.shape == (3, 1, 32, 32)
    assert torch.equal(batch.masks, (batch.soft_masks >= 0.5).float())
    template = "a dermoscopic lesion photo of {} for skin cancer diagnosis"
    assert batch.prompts == tuple(template.format(label.replace("_", " ")) for label in batch.labels)
    assert opened(adapter, ", threshold=0.9")(lf.Batch.blank(3)).masks.sum() <= batch.masks.sum()


def test_classes_come_from_settings_then_earlier_stages_then_the_seed(adapter):
    blank = lf.Batch.blank(6)
    drawn = opened(adapter)(blank)
    assert set(drawn.labels) <= {"melanoma", "nevus", "seborrheic_keratosis"} and len(set(drawn.labels)) > 1
    assert opened(adapter)(blank.select([4, 1])).labels == (drawn.labels[4], drawn.labels[1])
    given = blank.with_columns(labels=["nevus", None, "nevus", "melanoma", "nevus", "nevus"])
    labels = opened(adapter)(given).labels
    assert labels == (*given.labels[:1], drawn.labels[1], *given.labels[2:])
    assert opened(adapter, ", labels='melanoma'")(given).labels == ("melanoma",) * 6


def test_a_case_with_a_prompt_is_drawn_from_it(adapter):
    batch = lf.Batch.blank(2).with_columns(prompts=["something else", None])
    filled = opened(adapter)(batch)
    assert filled.prompts[0] == "something else" and filled.labels[0] is None
    assert filled.labels[1] is not None and "dermoscopic" in filled.prompts[1]


def test_an_unknown_class_is_refused_with_those_that_are_known(adapter):
    known = "it knows melanoma, nevus, seborrheic_keratosis"
    with pytest.raises(ConfigError, match=f"class 'wart' is unknown to .*; {known}"):
        opened(adapter, ", labels='wart'")
    with pytest.raises(ConfigError, match=f"class 'wart' is unknown to .*; {known}"):
        opened(adapter)(lf.Batch.blank(1).with_columns(labels=["wart"]))


def test_another_base_is_refused(adapter, tiny_base, tmp_path):
    other = tiny_stable_diffusion(tmp_path / "other", seed=1, latent_size=8, downsampling=4)
    with pytest.raises(CheckpointError, match=r"was trained on another base than .*other: .* give the base it was"):
        opened(adapter, f", base='{other}'")
    moved = shutil.copytree(tiny_base, tmp_path / "moved")
    assert opened(adapter, f", base='{moved}'") is not None


def test_a_base_that_predicts_something_else_is_refused(adapter, tmp_path):
    other = tiny_stable_diffusion(tmp_path / "v", latent_size=8, downsampling=4, prediction_type="v_prediction")
    with pytest.raises(CheckpointError, match=r"on a base that predicts epsilon, .* predicts v_prediction"):
        opened(adapter, f", base='{other}'")


def test_a_base_of_other_latents_is_refused(adapter, tiny_base, tmp_path):
    other = Path(shutil.copytree(tiny_base, tmp_path / "inpainting"))
    config = json.loads((other / "unet" / "config.json").read_text())
    unet = load_base(tiny_base).unet.from_config({**config, "in_channels": 9})
    unet.save_pretrained(other / "unet")
    with pytest.raises(CheckpointError, match="unet in_channels is 9, not 4"):
        load_adapted(adapter, str(other))


def test_a_missing_adapter_or_base_says_what_to_give(damaged, tmp_path):
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match=r"no skindualgen checkpoint at .*empty: there is no config.json; give"):
        load_adapted(tmp_path / "empty")
    card = json.loads((damaged / "config.json").read_text())
    (damaged / "config.json").write_text(json.dumps({**card, "base": "/nowhere/base"}))
    with pytest.raises(CheckpointError, match=r"no Stable Diffusion base at /nowhere/base.*; name the base .* base="):
        load_adapted(damaged)


@pytest.mark.parametrize("name", ["vae.safetensors", "unet_lora/adapter_model.safetensors"])
def test_damaged_and_missing_weights_are_named_damaged(damaged, name):
    (damaged / name).write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"skindualgen checkpoint .* is damaged"):
        load_adapted(damaged)
    (damaged / name).unlink()
    with pytest.raises(CheckpointError, match=r"skindualgen checkpoint .* is damaged"):
        load_adapted(damaged)


def test_a_checkpoint_of_another_kind_is_refused(damaged):
    (damaged / "config.json").write_text('{"kind": "ddpm", "classes": []}')
    with pytest.raises(CheckpointError, match="holds a checkpoint of kind 'ddpm', not 'skindualgen'"):
        load_adapted(damaged)


def test_what_a_run_draws_is_made_again(adapter, tmp_path):
    chain = lf.Chain.parse(f"skindualgen(checkpoint='{adapter}', {STEPS}) | mask-quality")
    run = chain.run(count=3, batch_size=2, output=tmp_path / "run", device="cpu", precision="bf16", report=False)
    assert run.regenerate("case-00000001").identical and run.verify().ok


def test_the_adapted_unet_is_compiled_where_that_is_asked_for(adapter, monkeypatch):
    compiled = []
    monkeypatch.setattr(StableDiffusionBase, "compiled", lambda base: compiled.append(base) or base)
    batch = lf.Batch.blank(2)
    images = opened(adapter)(batch).images
    assert not compiled
    assert torch.equal(opened(adapter, ", compile=true")(batch).images, images) and len(compiled) == 1
