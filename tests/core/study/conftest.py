"""A toy study: discs, and a trainer that is done in moments, since it learns from which colour on a pixel is lesion."""

from __future__ import annotations

import csv
import time
from dataclasses import replace

import numpy as np
import pytest
import torch
from pydantic import Field
from safetensors.torch import load_file, save_file

import lesionforge as lf
from lesionforge.core.dataset import Dataset
from lesionforge.core.predictions import FoundMasks
from lesionforge.core.registry import Registry
from lesionforge.core.study.recipe import Study
from lesionforge.core.training import TrainingLoop
from lesionforge.testing import disc_dataset

SPLITS = ("train", "train", "train", "val", "test", "test")
TOY = """
name = "toy"
[study]
seeds = [0, 1]
real_counts = [6, "all"]
[synthetic.discs]
data = "toy-discs"
[model.pixels]
use = "pixels"
steps = 12
[[arm]]
name = "R"
real = true
[[arm]]
name = "S"
synthetic = "discs"
count = 8
[[arm]]
name = "R+S"
real = true
synthetic = "discs"
ratio = 1.0
"""


class Pixels(lf.Trainer):
    """Learns from which colour on a pixel belongs to the lesion."""

    name = "pixels"

    class Config(lf.PluginConfig):
        steps: int | None = Field(None, ge=1, description="optimisation steps")
        epochs: int = Field(2, ge=1, description="passes over the training cases, unless steps is given")
        batch_size: int = Field(4, ge=1, description="cases in a batch")
        learning_rate: float = Field(1.0, gt=0, description="base learning rate")
        start: lf.Checkpoint | None = Field(None, description="checkpoint to start from")
        pause: float = Field(0.0, ge=0, description="seconds to rest after every step")

    def train(self, train, val, output):
        data = train.fetch(range(len(train)), masks=True)
        model = torch.nn.Conv2d(3, 1, 1)
        rng = torch.Generator().manual_seed(self.context.seed >> 1)
        with torch.no_grad():
            model.weight.copy_(torch.randn(model.weight.shape, generator=rng) - 2)
            model.bias.fill_(3)
        config = self.config
        loop = TrainingLoop(
            model=model,
            optimizer=torch.optim.AdamW(model.parameters(), config.learning_rate),
            output=output,
            context=self.context,
            steps=config.steps or config.epochs * -(-len(train) // config.batch_size),
            batch_size=config.batch_size,
            examples=len(train),
            checkpoint_every=4,
        )

        def losses(rows, step):
            time.sleep(config.pause)
            noisy = data.images[rows] + 0.02 * torch.randn_like(data.images[rows])
            logits = loop.network(noisy)
            return {"loss": torch.nn.functional.binary_cross_entropy_with_logits(logits, data.masks[rows])}

        loop.run(losses)
        save_file(model.state_dict(), output / "model.safetensors")

    def evaluate(self, test, output):
        model = torch.nn.Conv2d(3, 1, 1)
        model.load_state_dict(load_file(output / "model.safetensors"))
        batch = test.fetch(range(len(test)), masks=True)
        with torch.no_grad():
            found = (model(batch.images) > 0).float()
        both, either = (found * batch.masks).sum((1, 2, 3)), (found + batch.masks).sum((1, 2, 3))
        dice = (2 * both / either.clamp(min=1)).double()
        with (output / "per_image.csv").open("w", newline="") as file:
            table = csv.writer(file, lineterminator="\n")
            table.writerow(["image_id", "dice", "iou"])
            table.writerows([image, d, d / (2 - d)] for image, d in zip(test.ids, dice.tolist(), strict=True))
        masks = FoundMasks()
        masks.add(test.ids, found[:, 0].numpy())
        masks.write(output)
        return {"dice": float(dice.mean()), "iou": float((dice / (2 - dice)).mean()), "parameters": 4.0}


class ToyDiscs(lf.Source):
    """Discs of their own look, in memory."""

    name = "toy-discs"

    class Config(lf.PluginConfig):
        count: int = Field(30, ge=1, description="number of images")
        first: int = Field(500, ge=0, description="number of the first image")
        splits: bool = Field(False, description="whether they belong to splits")

    def load(self, location):
        config = self.config
        return discs(config.count, first=config.first, splits=SPLITS if config.splits else (None,))


class Squares(lf.Generator):
    """Draws dark squares, whatever it was trained on."""

    name = "square-drawer"

    class Config(lf.PluginConfig):
        checkpoint: lf.Checkpoint | None = None

    def generate(self, batch):
        masks = torch.zeros(len(batch), 1, 16, 16)
        masks[:, :, 4:12, 4:12] = 1
        rng = torch.Generator().manual_seed(batch.seeds[0] >> 1)
        images = (0.8 - 0.5 * masks).expand(-1, 3, -1, -1) + 0.1 * torch.rand(len(batch), 3, 16, 16, generator=rng)
        return batch.with_columns(images=images, masks=masks)


class Gate(lf.Filter):
    """Rejects nothing, after a look at the real images."""

    name = "gate"
    needs_fit = True

    def fit(self, real):
        return {"mean": real.fetch(range(len(real)), masks=False).images.mean()}

    def screen(self, batch):
        return batch


def discs(count, *, first=0, splits=SPLITS, per_lesion=1, name="discs"):
    """Noisy discs, called by their numbers from ``first`` on; other first numbers mean other images."""
    whole = disc_dataset(count, 16, seed=first)
    records = []
    for row, record in enumerate(whole.records):
        noise = np.random.default_rng(first + row).normal(0, 40, (16, 16, 3))
        named = replace(record, image_id=f"disc-{first + row:04d}", group=f"lesion-{(first + row) // per_lesion}")
        split = splits[row // per_lesion % len(splits)]
        records.append(replace(named, image=(record.image + noise).clip(0, 255).astype(np.uint8), split=split))
    return Dataset(name=name, records=tuple(records))


@pytest.fixture(scope="session")
def study_registry():
    """Function that returns a registry of the toys, with further plugins if wanted."""
    from types import SimpleNamespace

    def make(*plugins):
        listed = [Pixels, ToyDiscs, Squares, Gate, *plugins]
        toys = SimpleNamespace(
            name="study-toys",
            dist=SimpleNamespace(name="toy-distribution", version="1.0"),
            load=lambda: SimpleNamespace(register_plugins=lf.hookimpl(lambda: listed)),
        )
        return Registry([toys])

    return make


@pytest.fixture
def toy_registry(study_registry):
    return study_registry()


@pytest.fixture
def real():
    """24 training, 8 validation and 16 test discs."""
    return discs(48)


@pytest.fixture(scope="session")
def toy_text():
    """The toy study as text."""
    return TOY


MADE = """
[train.generator]
use = "pixels"
steps = 8
[synthesis]
count = 30
batch_size = 4
shard_size = 4
[[stage]]
use = "square-drawer"
checkpoint = "train:generator"
[[stage]]
use = "gate"
"""


@pytest.fixture(scope="session")
def made_text(tmp_path_factory):
    """The toy study with a synthetic set that it makes itself, by a generator that it trains."""
    recipe = tmp_path_factory.mktemp("recipes") / "made.toml"
    recipe.write_text(MADE)
    return TOY.replace('data = "toy-discs"', f'recipe = "{recipe}"')


@pytest.fixture
def toy():
    """The toy study."""
    return Study.from_toml(TOY)


@pytest.fixture(scope="session")
def make_discs():
    """The function that makes discs."""
    return discs
