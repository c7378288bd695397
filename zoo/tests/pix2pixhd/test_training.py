"""Trainer pix2pixhd: its phases, what it learns, what it leaves, and that being killed changes nothing."""

from __future__ import annotations

import csv
import json
from dataclasses import replace
from itertools import pairwise
from pathlib import Path

import pytest
import torch
from pydantic import ValidationError

import lesionforge as lf
from lesionforge.testing import assert_contract, disc_dataset
from lesionforge_zoo.pix2pixhd.checkpoint import load_checkpoint
from lesionforge_zoo.pix2pixhd.conditions import TrainingPairs, condition_planes, randomly_flipped
from lesionforge_zoo.pix2pixhd.config import GeneratorShape, ModelCard
from lesionforge_zoo.pix2pixhd.players import feature_matching_loss
from lesionforge_zoo.pix2pixhd.training import Training, constant_then_linear

CPU = torch.device("cpu")
TINY = (
    "size=32, width=4, downsamplings=2, blocks=1, enhancer_blocks=1, discriminators=2, discriminator_width=4, "
    "discriminator_halvings=2, batch_size=4, checkpoint_every=1"
)


@pytest.mark.parametrize(
    "phases",
    [
        "coarse_steps=2, enhancer_steps=2, steps=3, snapshot_every=2",
        "enhancer=false, classes=true, steps=5, snapshot_every=0",
    ],
)
def test_the_contract_holds_in_every_phase(phases):
    assert_contract(f"pix2pixhd({TINY}, {phases})", role="trainer")


def made_training(config, data: lf.Dataset, output: Path, context: lf.Context) -> Training:
    card = ModelCard(**config.model_dump(include=set(GeneratorShape.model_fields)))
    return Training(config, card, TrainingPairs(data, config.size, classes=False), output, context)


def test_a_few_dozen_steps_bring_features_and_pixels_nearer_to_real_ones(train, settings, phantoms, tmp_path):
    changes = {"enhancer": False, "steps": 40, "batch_size": 8, "decay_share": 0.2}
    # Discriminators that are never trained: those of the training grow sharper, and the loss with them.
    fresh = made_training(settings(**changes), phantoms, tmp_path, lf.Context(CPU, "fp32", "painter", 3))
    trained, _ = load_checkpoint(train(phantoms, tmp_path / "trained", **changes))
    condition, images = TrainingPairs(phantoms, 32, classes=False).take(range(48), CPU)
    matching, distance = {}, {}
    with torch.no_grad():
        for name, generator in (("before", fresh.generator), ("after", trained)):
            made = generator(condition)
            judged = [fresh._discriminators(condition, pictures) for pictures in (images, made)]
            matching[name] = feature_matching_loss(*judged).item()
            distance[name] = (made - images).abs().mean().item()
    assert matching["after"] < 0.7 * matching["before"]
    assert distance["after"] < 0.85 * distance["before"]
    inside, outside = (made[(condition == value).expand_as(made)].mean() for value in (1, 0))
    assert inside < outside - 0.1  # lesions are darker than skin


def test_every_phase_moves_its_own_networks_alone(settings, phantoms, tmp_path):
    moved = []

    def watch(done, total, metrics):
        parts = (training.generator.features, training.generator.front, training._discriminators)
        moved.append((total, *(sum(weight.double().sum().item() for weight in part.parameters()) for part in parts)))

    config = settings(coarse_steps=3, enhancer_steps=4, steps=5)
    training = made_training(config, phantoms, tmp_path, lf.Context(CPU, "fp32", "painter", 3, watch))
    watch(0, 0, {})
    training.run()
    assert [total for total, *_ in moved] == [0, *[3] * 3, *[4] * 4, *[5] * 5]
    changes = [[one != other for one, other in zip(*rows, strict=True)] for rows in pairwise(moved)]
    assert [row[1:] for row in changes] == [[True, False, True]] * 3 + [[False, True, True]] * 4 + [[True] * 3] * 5


def test_what_training_leaves(train, phantoms, tmp_path):
    train(phantoms, tmp_path, snapshot_every=2)
    card = json.loads((tmp_path / "config.json").read_text())
    assert card["kind"] == "pix2pixhd" and card["size"] == 32 and card["phantom"] and card["dataset"] == phantoms.name
    for phase in ("-coarse", "-enhancer", ""):
        with (tmp_path / f"curves{phase}.csv").open() as table:
            rows = list(csv.DictReader(table))
        assert [int(row["step"]) for row in rows] == [1, 2]
        assert {"loss", "adversarial_loss", "feature_matching_loss", "discriminator_loss"} < rows[0].keys()
        assert [file.name for file in (tmp_path / f"samples{phase}").iterdir()] == ["step-00000002.png"]
    # Everything that only a resumed job needs lies where finished jobs are cleaned.
    kept = {file.relative_to(tmp_path).parts[0] for file in tmp_path.rglob("*") if file.is_file()}
    assert len(kept - {"state"}) == 8 and not [file for file in tmp_path.rglob("*.pt") if "state" not in file.parts]


def test_the_same_seed_gives_the_same_weights(train, checkpoint, phantoms, tmp_path):
    again = train(phantoms, tmp_path / "again")
    assert (again / "generator.safetensors").read_bytes() == (checkpoint / "generator.safetensors").read_bytes()


def test_the_rate_stays_and_then_falls_linearly():
    rate = constant_then_linear(10, 4)
    assert [rate(step) for step in range(10)] == pytest.approx([1.0] * 6 + [0.8, 0.6, 0.4, 0.2])
    assert {constant_then_linear(10, 0)(step) for step in range(10)} == {1.0}


def test_pairs_are_masks_and_images_in_their_ranges(phantoms):
    condition, images = TrainingPairs(phantoms, 32, classes=False).take([3, 5], CPU)
    batch = phantoms.fetch([3, 5])
    assert torch.equal(condition, batch.masks)
    torch.testing.assert_close((images + 1) / 2, batch.images)


def test_the_mask_stands_in_the_plane_of_its_class_too():
    masks = (torch.rand(2, 1, 4, 4) > 0.5).float()
    planes = condition_planes(masks, ["b", "a"], ["a", "b", "c"])
    nothing = torch.zeros(4, 4)
    assert torch.equal(planes[0], torch.stack([masks[0, 0], nothing, masks[0, 0], nothing]))
    assert torch.equal(planes[1], torch.stack([masks[1, 0], masks[1, 0], nothing, nothing]))
    assert condition_planes(masks, [], []) is masks


def test_flips_keep_masks_and_images_together():
    torch.manual_seed(0)
    images = torch.rand(64, 3, 4, 4)
    condition, flipped = randomly_flipped(images[:, :1], images)
    assert torch.equal(condition, flipped[:, :1])
    kinds = [any(torch.equal(flipped[row], images[row].flip(axes)) for axes in ((), 1, 2, (1, 2))) for row in range(64)]
    assert all(kinds) and not torch.equal(images, flipped)


def without(data: lf.Dataset, column: str, rows: range) -> lf.Dataset:
    records = [replace(record, **{column: None}) if row in rows else record for row, record in enumerate(data.records)]
    return replace(data, records=tuple(records))


def test_cases_without_mask_or_wanted_label_are_left_out():
    discs = without(without(disc_dataset(), "mask", range(4)), "label", range(2, 9))
    assert len(TrainingPairs(discs, 32, classes=False)) == 20
    pairs = TrainingPairs(discs, 32, classes=True)
    assert len(pairs) == 15 and pairs.classes == ("melanoma", "nevus")


def test_data_without_masks_or_labels_are_an_error(train, tmp_path):
    discs = disc_dataset()
    with pytest.raises(lf.DataError, match="dataset discs has no masks"):
        train(without(discs, "mask", range(24)), tmp_path)
    with pytest.raises(lf.DataError, match=r"dataset discs has no labels .* which classes=true needs"):
        train(without(discs, "label", range(24)), tmp_path, classes=True)
    assert not list(tmp_path.iterdir())


def test_missing_weights_of_the_perceptual_loss_are_an_error_before_any_step(train, tmp_path):
    with pytest.raises(lf.CheckpointError, match="perceptual_weights: there is no file"):
        train(disc_dataset(), tmp_path, perceptual_weights="nowhere.pth")
    assert not list(tmp_path.iterdir())


def test_settings_that_cannot_run_say_why(settings):
    with pytest.raises(ValidationError, match="at 8 pixels discriminator 4 would see less than 2; lower"):
        settings(size=16, downsamplings=1, discriminators=4)
    with pytest.raises(ValidationError, match="enhancer_steps without coarse_steps"):
        settings(coarse_steps=0)
    with pytest.raises(ValidationError, match="VGG-19 needs 16 pixels, not 8"):
        settings(size=16, downsamplings=1, perceptual_weights="vgg.pth")
