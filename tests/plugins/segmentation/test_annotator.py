from __future__ import annotations

import io
import subprocess
import sys

import numpy as np
import pytest
import torch
from PIL import Image

from lesionforge.core.batch import Batch
from lesionforge.core.config import checkpoint_fields
from lesionforge.core.context import Context
from lesionforge.core.errors import PluginError
from lesionforge.plugins.segmentation.pictures import outline_sheet
from lesionforge.plugins.segmentation.plugin import SegmentationTrainer, SegmenterAnnotator, SegmenterExtractor
from lesionforge.plugins.segmentation.prediction import soft_dice_confidence
from lesionforge.plugins.segmentation.segmenter import load_segmenter
from lesionforge.testing import assert_contract, disc_dataset


def annotator(checkpoint, *, precision="fp32", **values) -> SegmenterAnnotator:
    stage = SegmenterAnnotator(SegmenterAnnotator.Config(checkpoint=str(checkpoint), **values))
    stage.setup(Context(torch.device("cpu"), precision, name="segmenter"))
    return stage


def extractor(checkpoint) -> SegmenterExtractor:
    plugin = SegmenterExtractor(SegmenterExtractor.Config(weights=str(checkpoint)))
    plugin.setup(Context(torch.device("cpu"), name="segmenter"))
    return plugin


def batch_of(images: torch.Tensor) -> Batch:
    return Batch.blank(len(images)).with_columns(images=images)


def test_plain_annotation_is_the_network_s_own_answer(checkpoint):
    images = torch.rand(3, 3, 32, 32)
    out = annotator(checkpoint, flips=False).annotate(batch_of(images))
    segmenter, _ = load_segmenter(checkpoint)
    with torch.no_grad():
        expected = segmenter(images).sigmoid()
    assert torch.allclose(out.soft_masks, expected, atol=1e-6)
    assert torch.equal(out.masks, (out.soft_masks >= 0.5).float())
    assert 0 < out.masks.mean() < 1, "the specimen must straddle the threshold"
    assert torch.equal(out.images, images)
    assert out.scores["segmenter_confidence"].shape == (3,)


def test_mirrorings_make_the_answer_equivariant(checkpoint):
    images = torch.rand(2, 3, 32, 32)
    stage = annotator(checkpoint)
    soft = stage.annotate(batch_of(images)).soft_masks
    for axes in ((-1,), (-2,), (-2, -1)):
        mirrored = stage.annotate(batch_of(images.flip(axes))).soft_masks
        assert torch.allclose(mirrored.flip(axes), soft, atol=1e-6)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("shape", [(32, 32), (45, 70)])
def test_a_case_does_not_depend_on_order_or_neighbours(checkpoint, precision, shape):
    stage = annotator(checkpoint, precision=precision)
    images, others = torch.rand(4, 3, *shape), torch.rand(4, 3, *shape)
    first = stage.annotate(batch_of(images))
    reversed_ = stage.annotate(batch_of(images.flip(0)))
    mixed = stage.annotate(batch_of(torch.cat([others[:3], images[:1]])))
    assert first.soft_masks.shape == (4, 1, *shape)
    for row, other, at in ((0, reversed_, 3), (2, reversed_, 1), (0, mixed, 3)):
        assert torch.equal(first.soft_masks[row], other.soft_masks[at])
        assert torch.equal(first.scores["segmenter_confidence"][row], other.scores["segmenter_confidence"][at])


def test_keeps_the_contract_of_its_role(checkpoint):
    assert_contract(f'segmenter(checkpoint="{checkpoint}")', role="annotator", data=disc_dataset(8, 40))


def test_threshold_moves_the_mask_only(checkpoint):
    batch = batch_of(torch.rand(1, 3, 32, 32))
    low, high = (annotator(checkpoint, threshold=value).annotate(batch) for value in (0.3, 0.7))
    assert torch.equal(low.soft_masks, high.soft_masks)
    assert low.masks.sum() > high.masks.sum()


def test_confidence_estimates_the_dice_of_calibrated_probabilities():
    rng = torch.Generator().manual_seed(0)
    probabilities = torch.rand(1, 1, 400, 400, generator=rng) ** 3
    truth = torch.rand(1, 1, 400, 400, generator=rng) < probabilities
    masks = (probabilities >= 0.5).float()
    dice = 2 * (masks.bool() & truth).sum() / (masks.sum() + truth.sum())
    assert soft_dice_confidence(probabilities, masks).item() == pytest.approx(dice.item(), abs=0.01)
    certain = torch.zeros(2, 1, 8, 8)
    certain[0, :, 2:5] = 1
    assert soft_dice_confidence(certain, certain).tolist() == [1, 0]


def test_images_are_needed(checkpoint):
    with pytest.raises(PluginError, match="stage segmenter needs images"):
        annotator(checkpoint).annotate(Batch.blank(1))


def test_extractor_gives_maps_and_vectors_of_the_encoder(checkpoint):
    plugin = extractor(checkpoint)
    images = torch.rand(3, 3, 50, 41)
    maps, vectors = plugin.feature_maps(images), plugin.features(images)
    assert [tuple(features.shape) for features in maps] == [(3, 4, 32, 32), (3, 8, 16, 16), (3, 16, 8, 8)]
    assert vectors.shape == (3, 24) and vectors.dtype == torch.float32
    assert torch.equal(vectors[:, 8:], maps[-1].mean((2, 3)))
    assert torch.equal(vectors, plugin.features(images)) and vectors.std() > 0
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert torch.equal(plugin.features(images), vectors)
    assert plugin.label == "segmenter encoder"


def test_extractor_says_when_it_was_trained_on_phantoms(make_trainer, tmp_path):
    make_trainer(steps=1).train(disc_dataset(3, 32), None, tmp_path)
    assert extractor(tmp_path).label == "segmenter encoder (trained on phantoms)"


def test_checkpoints_are_declared_to_the_runner():
    assert checkpoint_fields(SegmentationTrainer.Config) == ["encoder_weights"]
    assert checkpoint_fields(SegmenterAnnotator.Config) == ["checkpoint"]
    assert checkpoint_fields(SegmenterExtractor.Config) == ["weights"]


def test_the_plugin_module_is_light():
    code = (
        "import sys; import lesionforge.plugins.segmentation.plugin as p; p.register_plugins();"
        "heavy = {'torch', 'numpy', 'scipy', 'diffusers', 'timm', 'torchvision'} & sys.modules.keys();"
        "assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_outline_sheet_draws_both_outlines():
    images = torch.full((2, 3, 64, 64), 0.5)
    truth, found = torch.zeros(2, 2, 1, 64, 64, dtype=torch.bool)
    truth[:, :, 10:40, 10:40], found[:, :, 20:50, 20:50] = True, True
    pixels = np.asarray(Image.open(io.BytesIO(outline_sheet(images, truth, found))))
    assert pixels.shape == (128, 256, 3)
    colours = {tuple(colour) for colour in pixels.reshape(-1, 3).tolist()}
    assert colours == {(128, 128, 128), (0, 230, 51), (255, 26, 204)}
    assert tuple(pixels[20, 50]) == (0, 230, 51) and tuple(pixels[99, 70]) == (255, 26, 204)
