"""Small data for contract tests: dark discs on bright ground, with exact masks."""

from __future__ import annotations

import numpy as np

from ..batch import Batch
from ..dataset import Dataset, Record
from ..seeding import name_seed

CLASSES = ("nevus", "melanoma")


def disc_dataset(count: int = 24, size: int = 32, *, seed: int = 0) -> Dataset:
    """Return ``count`` images of a dark disc with masks, labels and captions; two thirds train, the rest val."""
    records = []
    for number in range(count):
        rng = np.random.default_rng(name_seed(str(seed), str(number)))
        y, x = np.mgrid[:size, :size]
        centre, radius = rng.uniform(0.35, 0.65, 2) * size, rng.uniform(0.15, 0.3) * size
        mask = ((y - centre[0]) ** 2 + (x - centre[1]) ** 2 < radius**2).astype(np.uint8)
        skin = np.array([205, 160, 140]) + rng.normal(0, 6, (size, size, 3))
        image = np.where(mask[..., None] == 1, skin * 0.45, skin).clip(0, 255).astype(np.uint8)
        records.append(
            Record(
                image_id=f"disc-{number:03d}",
                image=image,
                mask=mask,
                label=CLASSES[number % 2],
                caption=f"a dark disc, number {number}",
                split="train" if number % 3 else "val",
            )
        )
    return Dataset(name="discs", records=tuple(records), phantom=True)


def filled_batch(data: Dataset, rows: list[int]) -> Batch:
    """Return ``rows`` of ``data`` with soft masks added, as a chain would hand them to an annotator or filter."""
    batch = data.fetch(rows, masks=True)
    assert batch.masks is not None
    return batch.with_columns(soft_masks=batch.masks * 0.8 + 0.1)
