from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.morphology import disk

from lesionforge.core.batch import Batch
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import DataError
from lesionforge.core.pictures import contact_sheet, dataset_sheet, thumbnail

GREY = np.full((64, 64, 3), 120, np.uint8)


def changed(mask: np.ndarray, image: np.ndarray = GREY, tile: int = 128) -> np.ndarray:
    """Return where the outline of a mask changes the picture."""
    plain, drawn = (np.asarray(thumbnail(image, shown, tile)).astype(int) for shown in (None, mask))
    return np.abs(plain - drawn).max(axis=-1) > 8


def test_the_outline_lies_on_the_masks_border():
    mask = np.zeros((64, 64), np.uint8)
    mask[12:53, 12:53] = disk(20)
    rows, columns = np.nonzero(changed(mask))
    radius = np.hypot(rows + 0.5 - 65, columns + 0.5 - 65)
    assert radius.min() > 36 and radius.max() < 45
    assert len(set(np.round(np.degrees(np.arctan2(rows - 64.5, columns - 64.5)) / 10))) >= 36


def test_the_inside_of_holes_is_outlined_and_empty_masks_draw_nothing():
    mask = np.ones((64, 64), np.uint8)
    mask[20:44, 20:44] = 0
    drawn = changed(mask)
    assert drawn[40, 64] and drawn[64, 40] and drawn[1, 64] and not drawn[64, 64] and not drawn[20, 20]
    assert not changed(np.zeros((64, 64), np.uint8)).any()


def test_proportions_are_kept():
    wide = np.asarray(thumbnail(np.zeros((20, 80, 3), np.uint8), None, 100))
    dark = (wide < 128).all(axis=-1)
    assert dark.any(axis=0).sum() == 100 and dark.any(axis=1).sum() == 25


def test_a_batch_and_its_arrays_give_the_same_sheet():
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 16, 16, 3), dtype=np.uint8)
    masks = rng.integers(0, 2, (5, 16, 16), dtype=np.uint8)
    batch = Batch.blank(5).with_columns(
        images=torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255,
        masks=torch.from_numpy(masks)[:, None].float(),
    )
    from_batch, from_arrays = contact_sheet(batch, tile=48), contact_sheet(images, masks, tile=48)
    assert from_batch.tobytes() == from_arrays.tobytes()
    assert contact_sheet(batch, tile=48, outlines=False).tobytes() == contact_sheet(images, tile=48).tobytes()


@pytest.mark.parametrize(
    ("count", "columns", "grid"), [(1, None, (1, 1)), (6, None, (3, 2)), (7, 4, (4, 2)), (2, 9, (2, 1))]
)
def test_size_of_the_sheet(count, columns, grid):
    sheet = contact_sheet([GREY] * count, columns=columns, tile=50)
    assert sheet.size == tuple(2 * 12 + number * 50 + (number - 1) * 8 for number in grid)


def test_captions_of_any_length_and_script_do_not_change_the_size():
    hostile = ["<script>" * 50 + "\nx", "лезия\x00\x1b[31m", ""]
    sheets = [contact_sheet([GREY] * 3, captions=captions, tile=40) for captions in (hostile, ["a\nb"] * 3)]
    assert sheets[0].size == sheets[1].size


@pytest.mark.parametrize(
    "arguments", [{"images": []}, {"images": [GREY], "captions": ["a", "b"]}, {"images": [GREY], "masks": []}]
)
def test_columns_of_unequal_length_are_refused(arguments):
    with pytest.raises(DataError, match="contact sheet of"):
        contact_sheet(**arguments)


def test_dataset_sheet_is_always_the_same_and_passes_over_bad_files(tmp_path):
    good = tuple(Record(f"r{number}", np.full((8, 8 + number, 3), number, np.uint8)) for number in range(6))
    dataset = Dataset("d", (*good, Record("bad", tmp_path / "absent.png")))
    sheet = dataset_sheet(dataset, count=20, tile=32)
    assert sheet.tobytes() == dataset_sheet(dataset.take([6, 5, 4, 3, 2, 1, 0]), count=20, tile=32).tobytes()
    phantoms = Dataset("d", dataset.records, phantom=True)
    assert sheet.tobytes() != dataset_sheet(phantoms, count=20, tile=32).tobytes()
    with pytest.raises(DataError, match="contact sheet of 0"):
        dataset_sheet(dataset.take([6]))
