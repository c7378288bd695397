"""Generator pix2pixhd: images into any masks, the same ones for the same mask, and one clear line for every mistake."""

from __future__ import annotations

import json
import shutil

import pytest
import torch

import lesionforge as lf
from lesionforge.testing import assert_contract, disc_dataset


def opened(checkpoint, precision: str = "fp32"):
    return lf.Chain.parse(f'pix2pixhd(checkpoint="{checkpoint}")').open(device="cpu", precision=precision)[0]


def discs(count: int, size: int = 32) -> lf.Batch:
    filled = disc_dataset(size=size).fetch(range(count), masks=True)
    return lf.Batch.blank(count).with_columns(masks=filled.masks)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("kind", ["checkpoint", "classes_checkpoint"])
def test_the_contract_holds(kind, precision, request):
    folder = request.getfixturevalue(kind)
    assert_contract(f'pix2pixhd(checkpoint="{folder}")', role="generator", precision=precision)


@pytest.mark.parametrize("masks", ["lesion-masks(size=32)", "real-masks(size=32)", "constructed-masks(size=32)"])
def test_masks_of_any_stage_are_filled(masks, checkpoint, tmp_path):
    chain = lf.Chain.parse(f'{masks} | pix2pixhd(checkpoint="{checkpoint}") | mask-quality(max_area=0.9)')
    where = {"output": tmp_path / "run", "data": disc_dataset(), "device": "cpu", "precision": "fp32"}
    run = chain.run(count=3, batch_size=2, report=False, **where)
    assert [case.image.shape for case in run.cases()] == [(32, 32, 3)] * 3
    assert run.regenerate("case-00000001").identical and run.verify().ok


def test_a_mask_always_gives_the_same_image_and_another_mask_another(checkpoint):
    batch = discs(3)
    same = lf.Batch.blank(3, seed=9, first=50).with_columns(masks=batch.masks[[0, 0, 1]])
    images = opened(checkpoint)(same).images
    assert torch.equal(images[0], images[1]) and not torch.equal(images[0], images[2])


def test_the_label_shapes_the_image(classes_checkpoint):
    masks = discs(1).masks.expand(2, -1, -1, -1)
    batch = lf.Batch.blank(2).with_columns(masks=masks, labels=["nevus", "melanoma"])
    images = opened(classes_checkpoint)(batch).images
    assert (images[0] - images[1]).abs().max() > 1e-3


def test_labels_that_are_missing_or_unknown_are_an_error(classes_checkpoint):
    stage, batch = opened(classes_checkpoint), discs(2)
    with pytest.raises(lf.PluginError, match="stage pix2pixhd needs labels"):
        stage(batch)
    with pytest.raises(lf.PluginError, match=r"label 'wart' of case-00000001 is unknown .* knows melanoma, nevus"):
        stage(batch.with_columns(labels=["nevus", "wart"]))
    with pytest.raises(lf.PluginError, match="label None of case-00000000"):
        stage(batch.with_columns(labels=[None, "nevus"]))


def test_missing_masks_say_what_to_put_before(checkpoint):
    with pytest.raises(lf.PluginError, match="stage pix2pixhd needs masks, which no earlier stage filled"):
        opened(checkpoint)(lf.Batch.blank(1))


def test_masks_of_another_size_say_what_to_change(checkpoint):
    with pytest.raises(lf.PluginError, match=r"masks of 16 x 16 pixels, .* images of 32 x 32; give .* size=32"):
        opened(checkpoint)(discs(2, size=16))


def test_masks_that_are_not_binary_are_an_error(checkpoint):
    batch = discs(1)
    with pytest.raises(lf.PluginError, match="values other than 0 and 1"):
        opened(checkpoint)(batch.with_columns(masks=batch.masks * 0.7))


def test_a_missing_checkpoint_is_an_error(tmp_path):
    with pytest.raises(lf.CheckpointError, match=r"no pix2pixhd checkpoint at .*empty: there is no config.json"):
        opened(tmp_path / "empty")


def test_a_damaged_checkpoint_is_an_error(checkpoint, tmp_path):
    cut = shutil.copytree(checkpoint, tmp_path / "cut", ignore=shutil.ignore_patterns("state"))
    weights = cut / "generator.safetensors"
    whole = weights.read_bytes()
    weights.write_bytes(whole[:1000])
    with pytest.raises(lf.CheckpointError, match=r"cut is damaged: generator.safetensors: .*; train it again"):
        opened(cut)
    weights.write_bytes(whole)
    card = json.loads((cut / "config.json").read_text())
    (cut / "config.json").write_text(json.dumps({**card, "width": 4}))
    with pytest.raises(lf.CheckpointError, match=r"generator.safetensors does not fit config.json"):
        opened(cut)
    (cut / "config.json").write_text(json.dumps({**card, "kind": "ddpm"}))
    with pytest.raises(lf.CheckpointError, match=r"config.json describes no pix2pixhd checkpoint: kind"):
        opened(cut)
    (cut / "config.json").write_text("{")
    with pytest.raises(lf.CheckpointError, match=r"config.json describes no pix2pixhd checkpoint: content"):
        opened(cut)
