from __future__ import annotations

import csv
import math
from dataclasses import replace

import numpy as np
import pytest
import torch
from monai.metrics import compute_hausdorff_distance
from PIL import Image
from safetensors.torch import save_file
from torchvision.models import resnet18

from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import CheckpointError, ConfigError, DataError
from lesionforge.plugins.segmentation.config import SegmentationConfig, SegmenterInfo
from lesionforge.plugins.segmentation.pairs import Pairs
from lesionforge.plugins.segmentation.segmenter import load_segmenter
from lesionforge.plugins.segmentation.trainer import initial_segmenter, training_loss
from lesionforge.plugins.supervised import images as images_module
from lesionforge.testing import assert_contract, disc_dataset


class Killed(BaseException):
    pass


def kill_after(step: int):
    def progress(done, total, metrics):
        if done >= step:
            raise Killed

    return progress


def read_table(path):
    with path.open() as file:
        return list(csv.DictReader(file))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
def test_learns_discs_and_reports_what_it_measured(discs, make_trainer, tmp_path):
    train, test = discs.split("train"), disc_dataset(6, 32, seed=9)
    trainer = make_trainer(steps=60, learning_rate=1e-3, validate_every=15)
    trainer.train(train, discs.split("val"), tmp_path)
    metrics = trainer.evaluate(test, tmp_path)
    assert set(metrics) == {"dice", "iou", "hd95", "asd", "dice_aggregated", "parameters", "distances_undefined"}
    assert metrics["dice"] > 0.85 and metrics["distances_undefined"] == 0
    assert all(isinstance(value, float) for value in metrics.values())

    table = read_table(tmp_path / "per_image.csv")
    assert [row["image_id"] for row in table] == list(test.ids)
    for name in ("dice", "iou", "hd95", "asd"):
        assert metrics[name] == pytest.approx(np.mean([float(row[name]) for row in table]))

    segmenter, info = load_segmenter(tmp_path)
    assert (info.dataset, info.phantom) == ("discs", True)
    assert metrics["parameters"] == sum(p.numel() for p in segmenter.parameters())
    batch = test.fetch(range(6), masks=True)
    with torch.no_grad():
        found = (segmenter(batch.images) >= 0).float()
    reference = compute_hausdorff_distance(found, batch.masks, include_background=True, percentile=95)
    assert [float(row["hd95"]) for row in table] == pytest.approx(reference[:, 0].tolist(), rel=1e-5)

    curve = read_table(tmp_path / "curves.csv")
    assert max(float(row["val_dice"]) for row in curve if row["val_dice"]) > 0.8
    sheets = sorted((tmp_path / "samples").glob("*.png"))
    assert len(sheets) == 5 and Image.open(sheets[-1]).size == (3 * 128, 3 * 128)


@pytest.mark.parametrize("values", [{}, {"optimizer": "adamw", "schedule": "constant", "clip_norm": 0}])
def test_killed_and_resumed_equals_uninterrupted(discs, make_trainer, tmp_path, values):
    values = {"steps": 9, "checkpoint_every": 2, "batch_size": 5, "validate_every": 3, **values}
    train, val = discs.split("train"), discs.split("val")
    whole, broken = tmp_path / "whole", tmp_path / "broken"
    whole.mkdir(), broken.mkdir()
    make_trainer(**values).train(train, val, whole)
    for step in (3, 4, 7):
        with pytest.raises(Killed):
            make_trainer(kill_after(step), **values).train(train, val, broken)
    make_trainer(**values).train(train, val, broken)
    for name in ("model.safetensors", "config.json", "curves.csv"):
        assert (whole / name).read_bytes() == (broken / name).read_bytes(), name
    sheets = {file.name: file.read_bytes() for file in (whole / "samples").iterdir()}
    assert sheets == {file.name: file.read_bytes() for file in (broken / "samples").iterdir()}


def test_keeps_the_contract_of_its_role():
    assert_contract("segmentation(size=32, width=4, depth=2, steps=6, checkpoint_every=2)", role="trainer")


def test_stops_early_and_publishes_the_best_weights(discs, make_trainer, tmp_path):
    steps = []
    trainer = make_trainer(
        lambda done, total, metrics: steps.append(done), learning_rate=1e-12, steps=50, validate_every=2, patience=3
    )
    trainer.train(discs.split("train"), discs.split("val"), tmp_path)
    curve = [row for row in read_table(tmp_path / "curves.csv") if row["val_dice"]]
    best = max(float(row["val_dice"]) for row in curve)
    assert 8 <= steps[-1] < 50
    metrics = trainer.evaluate(discs.split("val"), tmp_path)
    assert metrics["dice"] == pytest.approx(best, abs=1e-9)


@pytest.mark.parametrize(("count", "batch_size"), [(1, 1), (1, 3), (3, 7)])
@pytest.mark.parametrize("architecture", ["dilated-unet", "deeplabv3plus"])
def test_few_cases_large_batches_and_no_val_are_handled(make_trainer, tmp_path, count, batch_size, architecture):
    network = {} if architecture == "dilated-unet" else {"width": None, "depth": None, "encoder": "resnet18"}
    trainer = make_trainer(architecture=architecture, epochs=2, batch_size=batch_size, **network)
    data = disc_dataset(count, 32)
    trainer.train(data, None, tmp_path)
    metrics = trainer.evaluate(data, tmp_path)
    assert math.isfinite(metrics["dice"])
    steps = [int(row["step"]) for row in read_table(tmp_path / "curves.csv")]
    assert steps[-1] == 2


def without_masks(data: Dataset, *rows: int) -> Dataset:
    bare = tuple(replace(r, mask=None) if row in rows else r for row, r in enumerate(data.records))
    return replace(data, records=bare)


def test_missing_masks_are_refused_before_any_work(discs, make_trainer, tmp_path):
    trainer = make_trainer(steps=2)
    lacking = without_masks(discs, 0, 5)
    with pytest.raises(DataError, match=r"training a segmenter needs masks, but 2 of 24 .* first 'disc-000'"):
        trainer.train(lacking, None, tmp_path)
    with pytest.raises(DataError, match="validating a segmenter needs masks"):
        trainer.train(discs, lacking, tmp_path)
    with pytest.raises(DataError, match="evaluating a segmenter needs masks"):
        trainer.evaluate(lacking, tmp_path)
    with pytest.raises(DataError, match="is empty"):
        trainer.train(discs.take([]), None, tmp_path)
    assert not list(tmp_path.iterdir())


def test_images_are_resized_and_an_untrained_folder_is_refused(discs, make_trainer, tmp_path):
    trainer = make_trainer(size=16, steps=1)
    with pytest.raises(CheckpointError, match="no segmentation checkpoint"):
        trainer.evaluate(discs, tmp_path)
    trainer.train(discs, None, tmp_path)
    assert math.isfinite(trainer.evaluate(disc_dataset(2, 40), tmp_path)["dice"])


def test_empty_predictions_are_counted_not_hidden(discs, make_trainer, tmp_path):
    trainer = make_trainer(steps=1)
    trainer.train(discs, None, tmp_path)
    empty = [replace(record, mask=np.zeros((32, 32), np.uint8)) for record in discs.records[:2]]
    lesionless = replace(discs, records=(*empty, *discs.records[2:4]))
    metrics = trainer.evaluate(lesionless, tmp_path)
    table = read_table(tmp_path / "per_image.csv")
    assert metrics["distances_undefined"] == sum(row["asd"] == "nan" for row in table)


def test_arms_with_one_seed_start_from_the_same_weights():
    config = SegmentationConfig(size=32, width=4, depth=2)
    info = SegmenterInfo(**config.network_values())
    random_state = torch.get_rng_state()
    one, again, other = (initial_segmenter(info, config, seed).state_dict() for seed in (1, 1, 2**64 - 1))
    assert torch.equal(random_state, torch.get_rng_state())
    assert all(torch.equal(one[name], again[name]) for name in one)
    assert not torch.equal(one["network.head.weight"], other["network.head.weight"])


def test_an_encoder_made_for_another_size_is_named_at_once():
    config = SegmentationConfig(architecture="unet", encoder="tu-swin_tiny_patch4_window7_224", size=64)
    with pytest.raises(ConfigError, match=r"tu-swin_tiny_patch4_window7_224.* cannot take images of 64 pixels"):
        initial_segmenter(SegmenterInfo(**config.network_values()), config, 0)


def test_training_starts_from_a_local_encoder(discs, make_trainer, tmp_path):
    source = resnet18(weights=None).state_dict()
    save_file(source, tmp_path / "resnet18.safetensors")
    trainer = make_trainer(
        architecture="unet",
        encoder="resnet18",
        width=None,
        depth=None,
        steps=1,
        learning_rate=1e-30,
        encoder_weights=str(tmp_path / "resnet18.safetensors"),
    )
    trainer.train(discs, None, tmp_path)
    encoder = load_segmenter(tmp_path)[0].network.encoder_module()
    assert torch.equal(encoder.state_dict()["conv1.weight"], source["conv1.weight"])


def test_large_data_are_decoded_in_passing_with_the_same_result(discs, monkeypatch):
    resident = Pairs(discs, 16, torch.device("cpu")).take([3, 1, 1])
    monkeypatch.setattr(images_module, "RESIDENT_BYTES", 0)
    passing = Pairs(discs, 16, torch.device("cpu")).take([3, 1, 1])
    assert all(torch.equal(a, b) for a, b in zip(resident, passing, strict=True))
    expected = discs.resized(16).fetch([3, 1, 1], masks=True)
    assert torch.equal(resident[0], expected.images) and torch.equal(resident[1], expected.masks)


@pytest.mark.parametrize(
    ("schedule", "factors"), [("cosine", [1, 0.5 + 0.5**1.5, 0.5, 0.5 - 0.5**1.5]), ("constant", [1, 1, 1, 1])]
)
def test_the_rate_follows_its_schedule(discs, make_trainer, tmp_path, schedule, factors):
    make_trainer(steps=4, learning_rate=1e-3, schedule=schedule).train(discs, None, tmp_path)
    rates = [float(row["learning_rate"]) for row in read_table(tmp_path / "curves.csv")]
    assert rates == pytest.approx([1e-3 * factor for factor in factors])


def test_the_auxiliary_head_counts_half():
    logits, masks = torch.randn(2, 2, 4, 4), torch.ones(2, 1, 4, 4)

    def loss(z, m):
        return (z - m).square().mean()

    expected = loss(logits[:, :1], masks) + 0.5 * loss(logits[:, 1:], masks)
    assert training_loss(logits, masks, loss).item() == pytest.approx(expected.item())
    assert training_loss(logits[:, :1], masks, loss).item() == pytest.approx(loss(logits[:, :1], masks).item())
