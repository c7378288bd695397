from __future__ import annotations

import math

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionforge.plugins.captions.shape import measure_shape

AXIS = torch.arange(256) + 0.5
X, Y = AXIS.expand(256, 256), AXIS[:, None].expand(256, 256)


def ellipse(x=128.0, y=128.0, radius=50.0, ratio=1.0, angle=0.0) -> torch.Tensor:
    along = (X - x) * math.cos(angle) + (Y - y) * math.sin(angle)
    across = -(X - x) * math.sin(angle) + (Y - y) * math.cos(angle)
    return ((along**2 / ratio + across**2 * ratio) < radius**2).float()[None, None]


@settings(max_examples=30, deadline=None)
@given(
    x=st.floats(90, 166),
    y=st.floats(90, 166),
    radius=st.floats(20, 45),
    ratio=st.floats(1, 3),
    angle=st.floats(0, math.pi),
)
def test_an_ellipse_is_measured_as_one(x, y, radius, ratio, angle):
    found = measure_shape(ellipse(x, y, radius, ratio, angle))
    assert found.area.item() == pytest.approx(math.pi * radius**2 / 256**2, rel=0.03)
    assert found.centre[0].tolist() == pytest.approx([x / 256, y / 256], abs=0.003)
    assert found.elongation.item() == pytest.approx(ratio, rel=0.04)
    assert found.asymmetry.max() < 0.05
    assert abs(found.irregularity.item()) < 0.03
    assert found.edge.item() == 0


def test_the_frame_takes_place_and_size_out_of_the_shape():
    def gourd(x: float, y: float, scale: float) -> torch.Tensor:
        head = (X - x) ** 2 + (Y - y + 22 * scale) ** 2 < (14 * scale) ** 2
        return (head | ((X - x) ** 2 + (Y - y) ** 2 < (22 * scale) ** 2)).float()[None, None]

    one, other = measure_shape(gourd(90, 100, 1.0)), measure_shape(gourd(140, 150, 2.0))
    for name in ("elongation", "irregularity"):
        assert getattr(one, name).item() == pytest.approx(getattr(other, name).item(), abs=0.02)
    assert torch.allclose(one.asymmetry, other.asymmetry, atol=0.02)
    # It folds onto itself along its own axis and not across it.
    assert one.asymmetry[0, 0] < 0.03 and one.asymmetry[0, 1] > 0.12


def test_asymmetry_is_the_area_that_folding_leaves_uncovered():
    # A square with a smaller one at a corner, turned by 45 degrees: one diagonal is an axis of symmetry.
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 80:160, 80:160] = 1
    mask[..., 160:200, 160:200] = 1
    small, large = measure_shape(mask).asymmetry[0].tolist()
    assert small < 0.03
    axis = torch.arange(256.0)
    lesion = mask[0, 0]
    rows, columns = (lesion.sum(1) * axis).sum() / lesion.sum(), (lesion.sum(0) * axis).sum() / lesion.sum()
    # Folding along the other diagonal through the centroid: (r, c) -> (s - c, s - r) with s the centroid's sum.
    total = round((rows + columns).item())
    r, c = lesion.nonzero().unbind(1)
    covered = lesion[(total - c).clamp(0, 255), (total - r).clamp(0, 255)].sum()
    assert large == pytest.approx(1 - (covered / lesion.sum()).item(), abs=0.03)


def test_ragged_outlines_are_irregular_and_fine_teeth_are_not():
    angle = torch.atan2(Y - 128, X - 128)
    distance = ((X - 128) ** 2 + (Y - 128) ** 2).sqrt()
    found = [
        measure_shape((distance < 60 * (1 + depth * torch.sin(lobes * angle))).float()[None, None]).irregularity.item()
        for depth, lobes in ((0.0, 1), (0.12, 6), (0.2, 9), (0.02, 60))
    ]
    plain, lobed, ragged, toothed = found
    assert abs(plain) < 0.01 < 0.07 < lobed < ragged
    assert toothed < 0.03


def test_irregularity_is_the_perimeter_over_that_of_the_ellipse():
    """Corners are rounded a little by the smoothing, so a square comes out below its own 4 / (2 sqrt(pi))."""
    mask = torch.zeros(1, 1, 256, 256)
    mask[..., 68:188, 68:188] = 1
    sharp = 4 / (2 * math.sqrt(math.pi)) - 1
    assert 0.6 * sharp < measure_shape(mask).irregularity.item() < sharp


def test_a_cut_lesion_covers_part_of_the_frame_of_the_image():
    mask = torch.zeros(1, 1, 40, 60)
    mask[..., :20, :] = 1
    assert measure_shape(mask).edge.item() == pytest.approx((60 + 2 * 19) / (2 * 60 + 2 * 38))


def test_an_empty_mask_has_no_shape_and_spoils_no_other():
    masks = torch.cat([torch.zeros(1, 1, 256, 256), ellipse(radius=30)])
    both, alone = measure_shape(masks), measure_shape(masks[1:])
    for name, column in vars(both).items():
        assert column[0].isnan().all()
        assert torch.allclose(column[1:], getattr(alone, name), atol=1e-5)
