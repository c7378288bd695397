from __future__ import annotations

import numpy as np
import pytest

from lesionforge.core.errors import StoreError
from lesionforge.core.predictions import FoundMasks, read_masks


def test_masks_come_back_by_image_and_equal_masks_are_equal_bytes(tmp_path):
    rng = np.random.default_rng(0)
    masks = rng.integers(0, 2, (5, 7, 9))
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        found = FoundMasks()
        found.add(["one", "zwei", "三"], masks[:3])
        found.add(["four", "five"], masks[3:].astype(bool))
        found.write(tmp_path / name)
    read = read_masks(tmp_path / "a")
    assert list(read) == ["one", "zwei", "三", "four", "five"]
    assert all((mask == masks[row]).all() and mask.dtype == np.uint8 for row, mask in enumerate(read.values()))
    assert (tmp_path / "a/masks.npz").read_bytes() == (tmp_path / "b/masks.npz").read_bytes()


def test_no_masks_and_damaged_masks(tmp_path):
    assert read_masks(tmp_path) == {}
    FoundMasks().write(tmp_path)
    assert read_masks(tmp_path) == {}
    whole = (tmp_path / "masks.npz").read_bytes()
    for content in (b"", b"nothing", whole[:-30]):
        (tmp_path / "masks.npz").write_bytes(content)
        with pytest.raises(StoreError, match=r"masks\.npz is damaged"):
            read_masks(tmp_path)
