"""The real, reduced ISIC 2018 set, where it is at hand: LESIONFORGE_DATA, or ../shared/data/isic256."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from lesionforge.core.inspection import inspect
from lesionforge.plugins.data.isic import Isic2018

BESIDE = Path(__file__).resolve().parents[4] / "shared" / "data" / "isic256"
ROOT = Path(os.environ.get("LESIONFORGE_DATA", BESIDE))
pytestmark = pytest.mark.skipif(not ROOT.is_dir(), reason="needs the reduced ISIC 2018 data")


@pytest.fixture(scope="module")
def dataset():
    return Isic2018().load(str(ROOT))


def test_every_case_has_what_the_tables_say(dataset):
    assert len(dataset) == 2181
    assert [len(dataset.split(name)) for name in ("train", "val", "test")] == [1526, 216, 439]
    assert sum(record.label is None for record in dataset.records) == 121
    assert dataset.classes == ("melanoma", "nevus", "seborrheic_keratosis")
    assert all(record.mask is not None for record in dataset.records)


def test_inspection_agrees_with_the_published_statistics(dataset):
    sample = dataset.take(range(0, len(dataset), 20))
    found = inspect(sample)
    assert found.problems == () and dict(found.sizes) == {"256x256": len(sample)}
    areas = [float(record.metadata["mask_area_fraction"]) for record in sample.records]
    touches = [record.metadata["mask_touches_border"] == "1" for record in sample.records]
    assert found.mask_statistics is not None
    assert found.mask_statistics.area["mean"] == pytest.approx(np.mean(areas), abs=1e-3)
    assert found.mask_statistics.border_touching == pytest.approx(np.mean(touches), abs=0.02)
    assert not [p for p in inspect(dataset.where(lambda r: bool(r.group))).problems if "across" in p.kind]


def test_a_batch_is_ready_for_training(dataset):
    batch = dataset.resized(64).fetch(range(8), masks=True)
    assert batch.images.shape == (8, 3, 64, 64) and 0.1 < float(batch.images.mean()) < 0.9
    assert set(batch.masks.unique().tolist()) == {0.0, 1.0}
