"""On a base that has learnt something, masks lie on the lesions they are drawn with."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from torch import Tensor

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.plugins.segmentation.config import SegmentationConfig
from lesionforge.plugins.segmentation.plugin import SegmentationTrainer
from lesionforge.plugins.skindualgen.plugin import SkinDualGenTrainer, SkinDualGenTrainerConfig

SIZE, DRAWN = 64, 16


@pytest.fixture(scope="module")
def phantoms() -> lf.Dataset:
    return lf.load_dataset(f"phantom(count=96, size={SIZE}, border_touch=0, hair=0, ruler=0, area_min=0.05)")


def trained(trainer: lf.Trainer, data: lf.Dataset, folder: Path) -> Path:
    folder.mkdir()
    trainer.setup(Context(torch.device("cpu"), "bf16", folder.name, 3))
    trainer.train(data.split("train"), None, folder)
    return folder


def dice(masks: Tensor, others: Tensor) -> Tensor:
    first, second = masks.flatten(1), others.flatten(1)
    return 2 * (first * second).sum(1) / (first.sum(1) + second.sum(1)).clamp(min=1)


def test_masks_overlap_what_a_segmenter_finds_far_better_than_those_of_other_images(phantoms, tmp_path):
    """After 160 steps on phantoms: the segmenter, trained on phantoms too, has seen none of the images."""
    values = {"base": "builtin:derm-small", "size": SIZE, "steps": 160, "batch_size": 4, "learning_rate": 3e-3}
    config = SkinDualGenTrainerConfig.model_validate({**values, "rank": 16, "alpha": 16, "snapshot_every": 0})
    adapter = trained(SkinDualGenTrainer(config), phantoms, tmp_path / "adapter")
    small = SegmentationConfig(size=SIZE, width=8, depth=3, steps=150, batch_size=8, learning_rate=1e-3)
    segmenter = trained(SegmentationTrainer(small), phantoms, tmp_path / "segmenter")

    drawing = f"skindualgen(checkpoint='{adapter}', size={SIZE}, num_inference_steps=15)"
    drawn = lf.Chain.parse(drawing).open(device="cpu", precision="fp32")[0](lf.Batch.blank(DRAWN))
    finding = lf.Chain.parse(f"segmenter(checkpoint='{segmenter}')").open(device="cpu", precision="fp32")[0]
    found = finding(drawn).masks
    own = dice(drawn.masks, found).mean()
    others = torch.stack([dice(drawn.masks, found.roll(shift, 0)) for shift in range(1, DRAWN)]).mean()
    assert own > others + 0.1
