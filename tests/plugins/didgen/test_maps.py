"""Masks from attention maps against the equation written out, and their uncertainty."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from skimage.filters import threshold_otsu

from lesionforge.kernels import extract_masks
from lesionforge.plugins.didgen.losses import stretched
from lesionforge.plugins.didgen.maps import iou, lesion_soft_masks, otsu_uncertainty, released_levels

from . import literal
from .test_losses import PLACES, WORDS, attention, masks


@pytest.mark.parametrize("tau", [0, 1, 4])
def test_soft_masks_are_equation_7(tau):
    cross, own = attention(4, WORDS), attention(8)
    made = lesion_soft_masks(cross, own, PLACES, tau=tau)
    across, within = literal.mean_map(cross.query, cross.key), literal.mean_map(own.query, own.key)
    for case, token in enumerate(PLACES[:, 0].tolist()):
        expected = literal.soft_mask(across[case], within[case], token, tau)
        torch.testing.assert_close(made[case, 0].double(), expected, rtol=0, atol=2e-5)


def test_soft_masks_of_the_released_code_are_of_sharpened_maps():
    cross, own = attention(4, WORDS), attention(8)
    made = lesion_soft_masks(cross, own, PLACES, tau=4, compat="reference")
    across, within = literal.mean_map(cross.query, cross.key), literal.mean_map(own.query, own.key)
    for case, (token, _, end) in enumerate(PLACES.tolist()):
        expected = literal.soft_mask(literal.sharpened(across[case], end), within[case], token - 1, 4)
        torch.testing.assert_close(made[case, 0].double(), expected, rtol=0, atol=2e-5)


def test_masks_of_the_released_code_are_those_of_its_own_steps():
    """Power of the matrix, stretched, product, stretched, bytes, enlarged, Otsu; nothing is closed or left out."""
    cross, own = attention(4, WORDS), attention(16)
    soft = lesion_soft_masks(cross, own, PLACES, tau=4, compat="reference")
    made = extract_masks(released_levels(soft, 64), 64, closing=0, largest_component=False)
    across, within = literal.mean_map(cross.query, cross.key), literal.mean_map(own.query, own.key)
    for case, (token, _, end) in enumerate(PLACES.tolist()):
        expected = literal.released_mask(across[case], within[case], token, end, 64)
        assert (made[case, 0].bool().numpy() != expected).mean() < 0.002  # a value at a level may be cut either way
        assert 0.05 < expected.mean() < 0.95


def test_levels_of_a_flat_map_and_of_one_that_is_not_finite_are_flat():
    maps = torch.full((3, 1, 8, 8), 0.3)
    maps[1, 0, 2, 2], maps[2, 0, 2, 2] = torch.nan, torch.inf
    levels = released_levels(maps, 16)
    assert levels.shape == (3, 1, 16, 16) and not levels.any()


def test_stretching_the_power_first_cancels():
    """The released code stretches A_S^4 to [0, 1] before the product, which gives the same soft mask."""
    own = attention(8)
    power = torch.linalg.matrix_power(literal.mean_map(own.query, own.key)[0], 4)
    column = torch.rand(64, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    plain, first = stretched(power @ column, dim=0), stretched(power.flatten(), dim=0).view(64, 64) @ column
    torch.testing.assert_close(stretched(first, dim=0), plain, rtol=0, atol=1e-9)


def test_masks_are_otsu_and_closing_of_the_soft_masks():
    soft = lesion_soft_masks(attention(4, WORDS), attention(16), PLACES, tau=1)
    made = extract_masks(soft, 64, closing=5, largest_component=False)
    for case in range(2):
        large = torch.nn.functional.interpolate(soft[case][None], size=(64, 64), mode="bilinear")[0, 0]
        levels = np.floor(large.detach().numpy() * 255 + 0.5).astype(np.uint8)
        expected = literal.closed(levels > threshold_otsu(levels), 5)
        assert (made[case, 0].bool().numpy() != expected).mean() < 0.002  # a level at .5 may round either way


def test_uncertainty_is_what_otsus_threshold_leaves_within_the_classes():
    rng = np.random.default_rng(0)
    noisy = np.where(masks(64)[0, 0].numpy() > 0, 0.8, 0.2) + rng.normal(0, 0.1, (64, 64))
    inside = noisy > 0.5
    within = (inside.mean() * noisy[inside].var() + (~inside).mean() * noisy[~inside].var()) / noisy.var()
    made = otsu_uncertainty(torch.from_numpy(noisy)[None, None], torch.from_numpy(inside)[None, None].double())
    assert float(made) == pytest.approx(within, rel=1e-6)


def test_two_flat_levels_are_certain_and_a_flat_map_is_not():
    mask = masks(32)
    assert float(otsu_uncertainty(0.2 + 0.6 * mask, mask).max()) < 1e-6
    assert float(otsu_uncertainty(torch.full_like(mask, 0.3), torch.zeros_like(mask)).min()) == 1


def test_iou_of_equal_disjoint_half_and_empty_masks():
    empty, full = torch.zeros(1, 1, 4, 4), torch.ones(1, 1, 4, 4)
    left = full.clone()
    left[..., 2:] = 0
    ones, others = torch.cat((left, left, full, empty)), torch.cat((left, 1 - left, left, empty))
    assert iou(ones, others).tolist() == [1, 0, 0.5, 1]
