"""Toy plugins and a registry that holds them, for tests of the core."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace

import torch
from pydantic import Field
from safetensors.torch import save_file

import lesionforge as lf
from lesionforge.core.errors import DataError
from lesionforge.core.metrics import Measurement
from lesionforge.core.registry import Registry
from lesionforge.core.training import TrainingLoop, Validation


class Blobs(lf.Generator):
    """Draws grey images whose brightness is random."""

    name = "blobs"

    class Config(lf.PluginConfig):
        size: int = Field(8, ge=2, le=64, description="edge in pixels")
        label: str = Field("nevus", description="class of every case")

    def generate(self, batch):
        def draw(seed):
            rng = torch.Generator().manual_seed(seed >> 1)
            return torch.rand(3, self.config.size, self.config.size, generator=rng) * torch.rand((), generator=rng)

        return batch.with_columns(
            images=torch.stack(list(map(draw, batch.seeds))), labels=[self.config.label] * len(batch)
        )


class Threshold(lf.Annotator):
    """Marks bright pixels."""

    name = "threshold"

    class Config(lf.PluginConfig):
        level: float = Field(0.5, ge=0, le=1, description="brightness above which a pixel is lesion")

    def annotate(self, batch):
        batch.require("images", stage=self.context.name)
        grey = batch.images.mean(dim=1, keepdim=True)
        return batch.with_columns(masks=(grey > self.config.level).float(), soft_masks=grey)


class Brightness(lf.Filter):
    """Rejects images darker than most real ones."""

    name = "brightness"
    needs_fit = True

    class Config(lf.PluginConfig):
        percentile: float = Field(20.0, ge=0, le=100, description="percentile of the real images below which to reject")

    def fit(self, real):
        means = torch.cat([batch.images.mean(dim=(1, 2, 3)) for batch in real.batches(4, masks=False)])
        return {"reference/brightness": means, "threshold": torch.quantile(means, self.config.percentile / 100)}

    def load_fit(self, state):
        self.threshold = state["threshold"]

    def screen(self, batch):
        values = batch.images.mean(dim=(1, 2, 3))
        scored = batch.with_columns(scores={"brightness": values})
        return scored.rejected_where(
            values < self.threshold * 0.5, plugin=self.context.name, score="brightness", threshold=float(self.threshold)
        )


class Explodes(lf.Annotator):
    """Raises as soon as it meets the case with a given number."""

    name = "explodes"

    class Config(lf.PluginConfig):
        at: int = Field(0, ge=0, description="case number that it cannot stand")
        marker: str = Field("", description="file whose presence calms it")

    def annotate(self, batch):
        calm = self.config.marker and Path(self.config.marker).exists()
        if not calm and f"case-{self.config.at:08d}" in batch.ids:
            raise ZeroDivisionError("boom\nsecond line")
        return batch


class Mean(lf.Trainer):
    """Learns the mean image."""

    name = "mean"

    class Config(lf.PluginConfig):
        steps: int = Field(6, ge=1, description="optimisation steps")
        start: lf.Checkpoint | None = Field(None, description="checkpoint to start from")

    def train(self, train, val, output):
        images = train.fetch(range(len(train)), masks=False).images
        model = torch.nn.Conv2d(3, 3, 1)
        with torch.no_grad():
            model.weight.fill_(0.1)
            model.bias.fill_(0.0)
        optimizer = torch.optim.AdamW(model.parameters(), 1e-2)
        loop = TrainingLoop(
            model=model,
            optimizer=optimizer,
            output=output,
            context=self.context,
            steps=self.config.steps,
            batch_size=4,
            examples=len(images),
            checkpoint_every=2,
        )

        def losses(rows, step):
            batch = images[rows]
            return {"loss": ((loop.network(torch.randn_like(batch)) - batch) ** 2).mean()}

        def evaluate(network):
            return {"val_loss": float((network(images) - images).square().mean())}

        loop.run(losses, validation=Validation(3, evaluate, "val_loss", higher_is_better=False))
        save_file(model.state_dict(), output / "model.safetensors")

    def evaluate(self, test, output):
        return {"cases": float(len(test))}


class Gap(lf.Metric):
    """Tells how much brighter the second dataset is; refuses sets of fewer images than it is told."""

    name = "gap"

    class Config(lf.PluginConfig):
        level: float = Field(1.0, ge=0, description="brightness of white")
        least: int = Field(1, ge=1, description="images that each set must have")
        weights: lf.Checkpoint | None = Field(None, description="checkpoint that it would look through")

    def measure(self, comparison):
        sets = (comparison.first, comparison.second)
        images = (len(sets[0]), len(sets[1]))
        if min(images) < self.config.least:
            raise DataError(f"{images[0]} and {images[1]} images are not {self.config.least}")
        means = [float(data.fetch(range(len(data)), masks=False).images.mean()) for data in sets]
        value = (means[1] - means[0]) * self.config.level
        weights = self.config.weights and Path(self.config.weights).name
        return Measurement("gap", value, value - 1, value + 1, images, images, None, {"weights": weights})


TOYS = [Blobs, Threshold, Brightness, Explodes, Mean, Gap]


def entry_point(name, load, distribution="toy-distribution"):
    """Return what the registry needs of an entry point."""
    return SimpleNamespace(name=name, dist=SimpleNamespace(name=distribution, version="1.0"), load=load)


def module(plugins, **hooks):
    """Return a module-like object that registers ``plugins``."""
    register = lf.hookimpl(lambda: plugins)
    return SimpleNamespace(register_plugins=register, **hooks)


def toy_registry(*points):
    """Return a registry of all toys and of further entry points."""
    return Registry([entry_point("toys", lambda: module(TOYS)), *points])
