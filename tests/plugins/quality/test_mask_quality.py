"""mask-quality against scikit-image and SciPy, image by image."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import ndimage
from skimage.measure import label, regionprops

from lesionforge.core.batch import Batch
from lesionforge.core.errors import ConfigError, PluginError
from lesionforge.plugins.quality.mask_scores import mask_scores


def literal(mask: np.ndarray, min_component_area: float) -> list[float]:
    """The four scores of one (H, W) mask, from independent libraries."""
    regions = regionprops(label(mask, connectivity=2))
    frame = np.ones_like(mask, bool)
    frame[1:-1, 1:-1] = False
    filled = ndimage.binary_fill_holes(mask)
    return [
        sum(region.area for region in regions) / mask.size,
        sum(region.area >= min_component_area * mask.size for region in regions),
        mask[frame].mean(),
        (filled.sum() - mask.sum()) / max(filled.sum(), 1),
    ]


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 2**32 - 1),
    count=st.integers(1, 5),
    height=st.integers(1, 24),
    width=st.integers(1, 24),
    density=st.floats(0, 1),
    min_area=st.sampled_from([0.0, 0.01, 0.1]),
)
def test_scores_match_scikit_image(seed, count, height, width, density, min_area) -> None:
    masks = np.random.default_rng(seed).random((count, height, width)) < density
    scores = mask_scores(torch.from_numpy(masks)[:, None].float(), min_component_area=min_area)
    expected = np.array([literal(mask.astype(np.uint8), min_area) for mask in masks])
    assert list(scores) == ["mask_area", "mask_components", "mask_border", "mask_holes"]
    np.testing.assert_allclose(torch.stack(list(scores.values()), 1).numpy(), expected, rtol=1e-12)


def test_neighbours_in_a_batch_never_touch() -> None:
    full = torch.ones(4, 1, 8, 8)
    assert mask_scores(full)["mask_components"].tolist() == [1] * 4
    ring = torch.zeros(2, 1, 9, 9)
    ring[0, :, 2:7, 2:7] = 1
    ring[0, :, 4, 4] = 0
    assert mask_scores(ring)["mask_holes"].tolist() == [pytest.approx(1 / 25), 0]


def test_an_empty_batch_has_no_scores() -> None:
    assert {len(score) for score in mask_scores(torch.zeros(0, 1, 8, 8)).values()} == {0}


def lesions() -> torch.Tensor:
    """Good, tiny, everything, two pieces, along the border, with a hole, good with a speck."""
    masks = torch.zeros(7, 1, 64, 64)
    masks[0, :, 20:44, 20:44] = 1
    masks[1, :, 30:33, 30:33] = 1
    masks[2] = 1
    masks[3, :, 10:20, 10:20] = masks[3, :, 40:50, 40:50] = 1
    masks[4, :, :, :50] = masks[4, :, :40] = 1
    masks[5, :, 20:44, 20:44] = 1
    masks[5, :, 30:36, 30:36] = 0
    masks[6, :, 20:44, 20:44] = 1
    masks[6, :, 2, 2] = 1
    return masks


def test_rejections_name_stage_score_value_and_threshold(ready) -> None:
    stage = ready("filter", "mask-quality", key="mask-quality-2")
    batch = stage(Batch.blank(7).with_columns(masks=lesions()))
    found = [(r.plugin, r.score, r.threshold) if r else None for r in batch.rejections]
    assert found == [
        None,
        ("mask-quality-2", "mask_area", 0.01),
        ("mask-quality-2", "mask_area", 0.98),
        ("mask-quality-2", "mask_components", 1),
        ("mask-quality-2", "mask_border", 0.6),
        ("mask-quality-2", "mask_holes", 0.01),
        None,
    ]
    for row, rejection in enumerate(batch.rejections):
        assert rejection is None or rejection.value == batch.scores[rejection.score][row]


def test_thresholds_are_configurable(ready) -> None:
    values = {"min_area": 0, "max_area": 1, "max_components": 2, "max_border": 1, "max_holes": 0.1}
    assert all(ready("filter", "mask-quality", **values)(Batch.blank(7).with_columns(masks=lesions())).kept)
    strict = ready("filter", "mask-quality", min_component_area=0)(Batch.blank(7).with_columns(masks=lesions()))
    assert not strict.kept[6]


def test_missing_masks_and_bad_thresholds_are_one_clear_line(ready) -> None:
    with pytest.raises(PluginError, match="stage mask-quality needs masks"):
        ready("filter", "mask-quality")(Batch.blank(2))
    with pytest.raises(ConfigError, match=r"min_area 0\.5 must not exceed max_area 0\.4"):
        ready("filter", "mask-quality", min_area=0.5, max_area=0.4)
    with pytest.raises(ConfigError, match="max_holes"):
        ready("filter", "mask-quality", max_holes=2)
