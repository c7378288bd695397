from __future__ import annotations

import time
from dataclasses import replace

import pytest
from pydantic import Field

import lesionforge as lf
from lesionforge.core.errors import DataError
from lesionforge.testing import disc_dataset


@pytest.fixture(scope="session")
def tuning_toys(toys):
    """The toys, and plugins that a search has something to do with."""

    class Bright(lf.Filter):
        """Rejects images that are darker than a level."""

        name = "bright"

        class Config(lf.PluginConfig):
            level: float = Field(0.0, ge=0, le=1, description="smallest mean brightness")
            seconds: float = Field(0.0, ge=0, description="time to take for a batch")
            below: float = Field(2.0, gt=0, le=2, description="level must be below it")
            kind: str | list[int] | bool = Field("plain", description="changes nothing")

            def model_post_init(self, _):
                if self.level >= self.below:
                    raise ValueError(f"level {self.level} must be below {self.below}")

        def screen(self, batch):
            time.sleep(self.config.seconds)
            values = batch.images.mean(dim=(1, 2, 3))
            scored = batch.with_columns(scores={"light": values, "mask_iou": values / 2})
            level = self.config.level
            return scored.rejected_where(values < level, plugin=self.context.name, score="light", threshold=level)

    class Contrast(toys.Gap):
        """The absolute gap, of which less is better; knows beforehand how many images it needs."""

        name = "contrast"
        higher_is_better = False

        def check(self, comparison):
            if len(comparison.second) < self.config.least:
                raise DataError(f"{len(comparison.second)} images are not {self.config.least}")

        def measure(self, comparison):
            found = super().measure(comparison)
            return replace(found, name="contrast", value=abs(found.value))

    return [*toys.TOYS, Bright, Contrast]


@pytest.fixture
def registry(toys, tuning_toys):
    return toys.Registry([toys.entry_point("tuning", lambda: toys.module(tuning_toys))])


@pytest.fixture(scope="session")
def real():
    discs = disc_dataset(16, 8)
    splits = ("train", "train", "val", "test")
    return replace(discs, records=tuple(replace(r, split=splits[n % 4]) for n, r in enumerate(discs.records)))


@pytest.fixture
def tune(registry, real, tmp_path):
    """Function that searches in ``tmp_path/NAME``."""

    def search(recipe, spaces, metric, *, name="tuned", **options):
        if isinstance(recipe, str):
            recipe = lf.Recipe.from_toml(recipe) if "\n" in recipe else lf.Chain.parse(recipe)
        options = {"data": real, "trials": 4, "count": 6, "device": "cpu", **options}
        return lf.tune(recipe, spaces, metric, output=tmp_path / name, registry=registry, **options)

    search.registry, search.real = registry, real
    return search
