from __future__ import annotations

import csv
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from lesionforge.core.batch import Batch
from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import ConfigError, DataError
from lesionforge.core.training import cosine_rate
from lesionforge.plugins.ddpm.plugin import DDPMGenerator, DDPMTrainer
from lesionforge.plugins.ddpm.training import (
    TrainingData,
    fresh_network,
    noise_prediction_losses,
    randomly_flipped,
    sample_grid,
)
from lesionforge.plugins.diffusion.schedule import NoiseSchedule
from lesionforge.testing import contract_rules, disc_dataset

TINY = {"size": 16, "width": 8, "multipliers": [1, 2], "blocks_per_level": 1, "timesteps": 100, "snapshot_every": 0}
CPU = Context(torch.device("cpu"), "fp32", "train-ddpm", 0)


def config(**values):
    return build_config(DDPMTrainer.Config, {**TINY, **values}, where="train-ddpm")


def trained(output, dataset=None, *, seed=0, **values):
    output.mkdir(exist_ok=True)
    trainer = DDPMTrainer(config(**values))
    trainer.setup(replace(CPU, seed=seed))
    trainer.train(dataset or disc_dataset(), None, output)
    return output


def curve(output):
    with (output / "curves.csv").open() as file:
        return list(csv.DictReader(file))


def test_loss_is_the_literal_formula_in_float64(tiny_network):
    network, schedule = tiny_network(4).double(), NoiseSchedule(100)
    clean = torch.rand(5, 4, 16, 16, generator=torch.Generator().manual_seed(0)).double() * 2 - 1
    with torch.random.fork_rng():
        torch.manual_seed(3)
        terms = noise_prediction_losses(network, schedule, clean, None)
        torch.manual_seed(3)
        t, eps = torch.randint(100, (5,)), torch.randn_like(clean)
    abar = torch.from_numpy(np.cumprod(1 - np.linspace(1e-4, 0.02, 100)))[t].reshape(5, 1, 1, 1)
    predicted = network(abar.sqrt() * clean + (1 - abar).sqrt() * eps, t).sample
    squared = ((eps - predicted) ** 2).detach()
    assert terms["loss"].item() == pytest.approx(squared.mean().item(), rel=1e-5)
    assert terms["image_loss"].item() == pytest.approx(squared[:, :3].mean().item(), rel=1e-5)
    assert terms["mask_loss"].item() == pytest.approx(squared[:, 3].mean().item(), rel=1e-5)


@pytest.mark.parametrize("mode", ["image", "joint"])
def test_learns_discs(tmp_path, mode):
    output = trained(tmp_path, mode=mode, steps=70, learning_rate=4e-3, seed=1)
    losses = [float(row["loss"]) for row in curve(output)]
    assert len(losses) == 70 and losses[0] == pytest.approx(1, abs=0.1), "a fresh network predicts no noise at all"
    assert np.mean(losses[-15:]) < 0.55


def test_leaves_a_checkpoint_that_the_generator_takes(tmp_path):
    output = trained(tmp_path, mode="joint", classes=True, steps=3, snapshot_every=2, snapshot_count=3)
    assert json.loads((output / "config.json").read_text()) == {
        "kind": "ddpm",
        "mode": "joint",
        "size": 16,
        "classes": ["melanoma", "nevus"],
        "dataset": "discs",
        "phantom": True,
    }
    assert (output / "unet" / "diffusion_pytorch_model.safetensors").exists()
    assert json.loads((output / "scheduler" / "scheduler_config.json").read_text())["_class_name"] == "DDPMScheduler"
    assert list(curve(output)[0]) == ["step", "loss", "image_loss", "mask_loss", "learning_rate"]
    grids = sorted((output / "samples").iterdir())
    assert [file.name for file in grids] == ["step-000002.png", "step-000003.png"]
    assert Image.open(grids[0]).size == (2 * 18 - 2, 4 * 18 - 2)
    stage = DDPMGenerator(build_config(DDPMGenerator.Config, {"checkpoint": str(output)}, where="ddpm"))
    stage.setup(CPU)
    batch = stage.generate(Batch.blank(2))
    assert batch.masks is not None and set(batch.labels or ()) <= {"melanoma", "nevus"}


@pytest.mark.parametrize(
    "settings",
    [
        "steps=6, batch_size=4, checkpoint_every=2, ema_decay=0.9, snapshot_every=3",
        'steps=6, batch_size=5, checkpoint_every=4, mode="joint", classes=true, warmup_steps=2',
    ],
)
def test_killed_and_resumed_equals_uninterrupted(settings):
    tiny = "size=16, width=8, multipliers=[1, 2], blocks_per_level=1, timesteps=20, snapshot_count=2"
    for rule in contract_rules(f"ddpm({tiny}, {settings})", role="trainer"):
        rule.check()


def test_same_seed_same_weights_and_snapshots_change_nothing(tmp_path):
    one = trained(tmp_path / "one", steps=4, seed=5)
    other = trained(tmp_path / "other", steps=4, seed=5, snapshot_every=2, snapshot_count=1)
    third = trained(tmp_path / "third", steps=4, seed=6)
    weights = [(run / "unet" / "diffusion_pytorch_model.safetensors").read_bytes() for run in (one, other, third)]
    assert weights[0] == weights[1] != weights[2]


def test_the_dilated_and_the_plain_network_begin_alike():
    dilated, plain = (fresh_network(config(dilations=rates), 0, CPU) for rates in ([2, 4], [1, 1]))
    for one, other in zip(dilated.parameters(), plain.parameters(), strict=True):
        assert torch.equal(one, other)


def test_pixels_are_scaled_and_the_mask_is_the_fourth_channel():
    data = disc_dataset(4, size=16)
    pixels = TrainingData(data, joint=True, classes=False, size=16).pixels([2, 0], torch.device("cpu"))
    batch = data.fetch([2, 0])
    torch.testing.assert_close(pixels[:, :3], batch.images * 2 - 1, atol=1e-6, rtol=0)
    assert torch.equal(pixels[:, 3:], batch.masks * 2 - 1)


def test_cases_without_label_learn_the_class_that_means_none():
    discs = disc_dataset(4, size=16)
    records = (replace(discs.records[0], label=None), *discs.records[1:])
    data = TrainingData(replace(discs, records=records), joint=False, classes=True, size=16)
    assert data.classes == ("melanoma", "nevus")
    cpu = torch.device("cpu")
    assert data.labels([0, 1, 2], cpu, dropout=0.0).tolist() == [2, 0, 1]
    assert data.labels([0, 1, 2], cpu, dropout=1.0).tolist() == [2, 2, 2]
    assert TrainingData(discs, joint=False, classes=False, size=16).labels([0], cpu, dropout=0.0) is None


def test_flips_move_image_and_mask_together_and_reach_all_four_poses():
    image = torch.arange(4.0).reshape(1, 1, 2, 2).expand(200, 2, 2, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        flipped = randomly_flipped(image)
    assert torch.equal(flipped[:, 0], flipped[:, 1])
    poses = {tuple(pose.flatten().tolist()) for pose in flipped[:, 0]}
    assert poses == {(0, 1, 2, 3), (1, 0, 3, 2), (2, 3, 0, 1), (3, 2, 1, 0)}


@given(st.integers(1, 10_000), st.integers(0, 10_000))
def test_rate_warms_up_then_falls_to_nothing(steps, warmup):
    rate = cosine_rate(steps, warmup)
    values = [rate(step) for step in {0, min(warmup, steps), steps // 2, steps - 1}]
    assert all(0 <= value <= 1 for value in values)
    if warmup < steps:
        assert rate(warmup) == 1 and rate(steps) == pytest.approx(0, abs=1e-9)
        assert all(rate(step) > rate(step + 1) for step in range(warmup, min(steps, warmup + 50)))


def test_grid_shows_masks_below_their_images():
    samples = torch.full((3, 4, 5, 6), -1.0)
    samples[1, 3] = 1.0
    grid = sample_grid(samples)
    assert grid.shape == (4 * 7 - 2, 2 * 8 - 2, 3)
    assert (grid[7:12, 8:14] == 255).all() and (grid[:5, 8:14] == 0).all() and (grid[7:12, :6] == 0).all()


def test_data_without_what_is_to_be_learnt_are_refused(tmp_path):
    discs = disc_dataset(4, size=16)
    bare = Dataset("bare", tuple(replace(record, mask=None, label=None) for record in discs.records))
    with pytest.raises(DataError, match="bare has no masks"):
        trained(tmp_path, bare, mode="joint", steps=1)
    with pytest.raises(DataError, match="bare has no labels"):
        trained(tmp_path, bare, classes=True, steps=1)


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 32, "multipliers": [1, 2, 2, 2], "dilations": [2, 4]}, "nothing but padding.*level 4.*4 pixels"),
        ({"dilations": [0, 1]}, "at least 1"),
        ({"width": 12}, "width = 12"),
        ({"mode": "mask"}, "mode"),
        ({"learning_rate": 0}, "learning_rate"),
    ],
)
def test_settings_without_sense_are_refused(values, words):
    with pytest.raises(ConfigError, match=words):
        config(**values)


def test_plain_convolutions_are_allowed_at_any_size():
    assert config(size=16, multipliers=[1, 2, 2, 2, 2], dilations=[1, 1]).dilations == (1, 1)
