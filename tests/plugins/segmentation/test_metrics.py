from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra.numpy import arrays
from monai.metrics import compute_average_surface_distance, compute_hausdorff_distance
from sklearn.metrics import f1_score, jaccard_score

from lesionforge.plugins.segmentation.metrics import Overlap
from lesionforge.plugins.segmentation.surfaces import surface_distances

MASKS = arrays(np.bool_, (2, 9, 12))


def blobs(seed: int, shape: tuple[int, int] = (40, 56)) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    y, x = np.mgrid[: shape[0], : shape[1]]

    def blob() -> np.ndarray:
        centre, radii = rng.uniform(0, 1, 2) * shape, rng.uniform(3, 20, 2)
        return ((y - centre[0]) / radii[0]) ** 2 + ((x - centre[1]) / radii[1]) ** 2 < 1 + 0.3 * rng.normal()

    return blob() | blob(), blob() | blob()


@given(MASKS)
def test_dice_and_iou_agree_with_scikit_learn(masks):
    predicted, truth = torch.from_numpy(masks[:1, None]), torch.from_numpy(masks[1:, None])
    overlap = Overlap.of(predicted, truth)
    pair = (masks[1].ravel(), masks[0].ravel())
    assert overlap.dice.item() == pytest.approx(f1_score(*pair, zero_division=1.0), abs=1e-12)
    assert overlap.iou.item() == pytest.approx(jaccard_score(*pair, zero_division=1.0), abs=1e-12)


def test_overlap_of_a_batch_is_that_of_its_images_in_any_dtype():
    pairs = [blobs(seed) for seed in range(6)]
    predicted, truth = (torch.from_numpy(np.stack(column))[:, None] for column in zip(*pairs, strict=True))
    whole = Overlap.of(predicted.float(), truth.to(torch.uint8))
    parts = Overlap.joined([Overlap.of(predicted[:2], truth[:2]), Overlap.of(predicted[2:], truth[2:])])
    assert torch.equal(whole.dice, parts.dice) and torch.equal(whole.iou, parts.iou)
    assert whole.dice.tolist() == [Overlap.of(predicted[i : i + 1], truth[i : i + 1]).dice.item() for i in range(6)]
    flat = f1_score(truth.flatten().numpy(), predicted.flatten().numpy())
    assert whole.aggregated_dice == pytest.approx(flat, abs=1e-12)
    assert torch.allclose(whole.iou, whole.dice / (2 - whole.dice))


def test_empty_masks_follow_the_documented_convention():
    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    assert Overlap.of(empty, empty).dice.item() == Overlap.of(empty, empty).iou.item() == 1
    assert Overlap.of(empty, full).dice.item() == Overlap.of(full, empty).iou.item() == 0
    nothing, something = np.zeros((4, 4), bool), np.ones((4, 4), bool)
    for convention in ("surface", "paper"):
        agree = surface_distances(nothing, nothing, convention=convention)
        assert (agree.hd, agree.hd95, agree.asd) == (0, 0, 0)
        for pair in ((nothing, something), (something, nothing)):
            missing = surface_distances(*pair, convention=convention)
            assert np.isnan([missing.hd, missing.hd95, missing.asd]).all()


def test_wrong_shapes_are_refused():
    with pytest.raises(ValueError, match=r"\(1, 1, 4, 4\)"):
        Overlap.of(torch.zeros(1, 1, 4, 4), torch.zeros(2, 1, 4, 4))
    with pytest.raises(ValueError, match=r"\(H, W\)"):
        surface_distances(np.zeros((4, 4), bool), np.zeros((4, 5), bool))


@pytest.mark.filterwarnings("ignore:.*always_return_as_numpy:FutureWarning")
@pytest.mark.parametrize("seed", range(12))
def test_surface_distances_agree_with_monai(seed):
    predicted, truth = blobs(seed)
    ours = surface_distances(predicted, truth)
    pair = [torch.from_numpy(mask)[None, None].float() for mask in (predicted, truth)]
    hd, hd95 = (compute_hausdorff_distance(*pair, include_background=True, percentile=p) for p in (None, 95))
    asd = compute_average_surface_distance(*pair, include_background=True, symmetric=True)
    assert ours.hd == pytest.approx(hd.item(), rel=1e-5)
    assert ours.hd95 == pytest.approx(hd95.item(), rel=1e-5)
    assert ours.asd == pytest.approx(asd.item(), rel=1e-5)


def outline(mask: np.ndarray) -> np.ndarray:
    padded = np.pad(mask, 1)
    buried = padded[:-2, 1:-1] & padded[2:, 1:-1] & padded[1:-1, :-2] & padded[1:-1, 2:]
    return mask & ~buried


@settings(max_examples=60, deadline=None)
@given(MASKS, st.tuples(st.floats(0.2, 5), st.floats(0.2, 5)), st.sampled_from(["surface", "paper"]))
def test_distances_agree_with_brute_force(masks, spacing, convention):
    predicted, truth = masks
    if not (predicted.any() and truth.any()):
        return
    choose = outline if convention == "surface" else (lambda mask: mask)
    a, b = (np.argwhere(choose(mask)) * spacing for mask in (predicted, truth))
    table = np.linalg.norm(a[:, None] - b[None], axis=2)
    there, back = table.min(1), table.min(0)
    ours = surface_distances(predicted, truth, spacing=spacing, convention=convention)
    assert ours.hd == pytest.approx(max(there.max(), back.max()), abs=1e-9)
    assert ours.hd95 == pytest.approx(max(np.percentile(there, 95), np.percentile(back, 95)), abs=1e-9)
    pooled, halves = np.concatenate([there, back]).mean(), (there.mean() + back.mean()) / 2
    assert ours.asd == pytest.approx(pooled if convention == "surface" else halves, abs=1e-9)


@settings(max_examples=40, deadline=None)
@given(MASKS)
def test_distances_are_symmetric_ordered_and_zero_for_equal_masks(masks):
    ours, swapped = surface_distances(*masks), surface_distances(*masks[::-1])
    assert [ours.hd, ours.hd95, ours.asd] == pytest.approx([swapped.hd, swapped.hd95, swapped.asd], nan_ok=True)
    same = surface_distances(masks[0], masks[0])
    assert (same.hd, same.hd95, same.asd) == (0, 0, 0)
    assert np.isnan(ours.hd) or ours.hd >= ours.hd95


def test_shifted_square_has_the_distances_one_counts_by_hand():
    truth = np.zeros((30, 30), bool)
    truth[5:15, 5:15] = True
    far = np.roll(truth, 12, axis=1)
    assert surface_distances(far, truth).hd == 12
    assert surface_distances(far, truth, spacing=(1.0, 0.5)).hd == 6
    assert surface_distances(far, truth, convention="paper").hd == 12
    assert surface_distances(np.roll(truth, 1, axis=1), truth, convention="paper").asd == pytest.approx(0.1)
