"""The parts that phantoms are drawn with, against independent references."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.spatial import cKDTree
from skimage.color import rgb2lab
from skimage.draw import polygon2mask
from skimage.measure import block_reduce

from lesionforge.core.seeding import case_seed
from lesionforge.plugins.data.phantom import Look
from lesionforge.plugins.data.phantoms.anatomy import draw_anatomy
from lesionforge.plugins.data.phantoms.arithmetic import (
    box_mean,
    coverage,
    decay,
    pixel_centres,
    smoothstep,
    soft_blur,
    tree_sum,
)
from lesionforge.plugins.data.phantoms.noise import Cells, Dice, Noise
from lesionforge.plugins.data.phantoms.outline import Outline, draw_outline, knot_angles
from lesionforge.plugins.data.phantoms.tones import skin_colour

CPU = torch.device("cpu")
SEEDS = [case_seed(3, index) for index in range(24)]


def outlines(**look: float) -> Outline:
    settings = Look(**look)
    anatomy = draw_anatomy(SEEDS, settings, [None] * len(SEEDS), 1, CPU)
    return draw_outline(anatomy.traits, anatomy.area, anatomy.dice, settings.border_touch)


def test_decay_is_nearly_exponential() -> None:
    density = torch.linspace(-0.5, 9, 200)
    assert torch.allclose(decay(density), torch.exp(-density), rtol=0, atol=1e-3)


def test_coverage_keeps_the_width_of_a_line_at_any_pixel_size() -> None:
    for size in (16, 64, 200):
        centres = pixel_centres(size, CPU)
        painted = coverage((centres - 0.123).abs(), 0.02, 2 / size).sum() * 2 / size
        assert painted.item() == pytest.approx(0.04, abs=1e-4)


def test_box_mean_averages_squares() -> None:
    image = torch.rand(2, 12, 12, generator=torch.Generator().manual_seed(0))
    assert np.allclose(box_mean(image, 3), block_reduce(image.numpy(), (1, 3, 3), np.mean), atol=1e-6)


def test_tree_sum_sums() -> None:
    values = torch.rand(3, 256, generator=torch.Generator().manual_seed(0))
    assert torch.allclose(tree_sum(values), values.double().sum(-1).float(), rtol=1e-6)


def test_blur_keeps_constant_images_and_spreads_points() -> None:
    radius = torch.tensor([0.5, 3.0]).view(2, 1, 1, 1)
    constant = torch.full((2, 3, 16, 16), 0.25)
    assert torch.allclose(soft_blur(constant, radius, 3), constant)
    point = torch.zeros(2, 1, 15, 15)
    point[:, :, 7, 7] = 1
    blurred = soft_blur(point, radius, 3)
    assert torch.equal(blurred[0], point[0])
    assert blurred[1].sum().item() == pytest.approx(1, abs=1e-5) and blurred[1, 0, 7, 7] < 0.5
    assert torch.equal(blurred[1], blurred[1].transpose(-1, -2))


def test_smoothstep_falls_where_its_bounds_are_swapped() -> None:
    value = torch.tensor([0.0, 0.5, 1.0])
    assert smoothstep(1, 0, value).tolist() == [1.0, 0.5, 0.0]


def test_directions_cover_the_circle() -> None:
    dice = Dice(list(range(2000)), 2, stream=1, step=0, device=CPU)
    cosine, sine = dice.direction()
    assert torch.allclose(cosine.square() + sine.square(), torch.ones_like(cosine))
    quadrants = torch.bincount(((cosine > 0).long() * 2 + (sine > 0).long()).flatten(), minlength=4)
    assert quadrants.min() > 400


@pytest.mark.parametrize(("frequency", "octaves"), [(3, 1), (2, 4), (1, 5)])
def test_noise_has_the_stated_spread_and_shows_the_same_at_any_size(frequency: int, octaves: int) -> None:
    small, large = (
        Noise(list(range(200)), stream=1, step=0, size=size, device=CPU).fractal(frequency, octaves)
        for size in (33, 99)
    )
    assert small.mean().abs() < 0.05
    assert small.std().item() == pytest.approx(1 / 3, rel=0.15)
    assert torch.allclose(small, large[:, 1::3, 1::3], atol=1e-4)  # the middle one of three pixels is at the same place


def test_refined_octaves_equal_splines_evaluated_one_by_one() -> None:
    both = Noise(SEEDS, stream=1, step=0, size=40, device=CPU)
    first, second = (Noise(SEEDS, stream=1, step=0, size=40, device=CPU) for _ in range(2))
    coarse = first.fractal(3)
    second.fractal(3)  # the second octave's coefficients come after those of the first
    fine = second.fractal(6)
    assert torch.allclose(both.fractal(3, 2), (coarse + fine / 2) / np.sqrt(1.25), atol=1e-5)


def test_mesh_lies_between_nearest_and_second_nearest_points() -> None:
    frequency, jitter, size = 6.5, 0.8, 50
    cells = Cells(SEEDS[:1], stream=1, step=0, size=size, factor=1, device=CPU)
    across, down, _ = Cells(SEEDS[:1], stream=1, step=0, size=size, factor=1, device=CPU)._points(frequency, jitter)
    edge = across.shape[-1]
    corner = np.arange(edge) - 0.5
    points = np.stack([corner[None, :] + across[0].numpy(), corner[:, None] + down[0].numpy()], -1).reshape(-1, 2)
    place = (pixel_centres(size, CPU).numpy() + 1) * frequency
    pixels = np.stack(np.meshgrid(place, place), -1).reshape(-1, 2)
    nearest, second = cKDTree(points).query(pixels, k=2)[0].T
    ramp = np.clip((second - nearest) / 0.4, 0, 1)
    expected = 1 - ramp * ramp * (3 - 2 * ramp)
    drawn = cells.mesh(frequency, jitter, torch.full((1, 1, 1), 0.4))
    assert np.allclose(drawn[0].numpy().ravel(), expected, atol=1e-4)


def test_discs_surround_their_points() -> None:
    frequency, jitter, size = 6.5, 0.9, 50
    cells = Cells(SEEDS[:1], stream=1, step=0, size=size, factor=1, device=CPU)
    twin = Cells(SEEDS[:1], stream=1, step=0, size=size, factor=1, device=CPU)
    across, down, traits = (column[0].numpy() for column in twin._points(frequency, jitter))
    corner = np.arange(len(across)) - 0.5
    points = np.stack([corner[None, :] + across, corner[:, None] + down], -1).reshape(-1, 2)
    place = (pixel_centres(size, CPU).numpy() + 1) * frequency
    distance, index = cKDTree(points).query(np.stack(np.meshgrid(place, place), -1).reshape(-1, 2))
    trait = traits.ravel()[index]
    radius = 0.1 + 0.2 * np.modf(trait * np.float32(11))[0]
    ramp = np.clip((0.1 - (distance - radius)) / 0.2, 0, 1)
    expected = ramp * ramp * (3 - 2 * ramp)
    low, high = cells.discs(frequency, jitter, [(0.0, 0.5), (0.5, 1.0)])
    assert np.allclose(low.numpy().ravel(), np.where(trait < 0.5, expected, 0), atol=1e-3)
    assert np.allclose(high.numpy().ravel(), np.where(trait < 0.5, 0, expected), atol=1e-3)


def test_skin_has_the_typology_angle_asked_for() -> None:
    angles = torch.tensor([-60.0, -30, 0, 20, 40, 55, 70]).view(-1, 1, 1)
    lightness, _, b = rgb2lab(skin_colour(angles)[..., 0, 0].numpy()).T
    assert np.allclose(np.degrees(np.arctan2(lightness - 50, b)), angles.flatten(), atol=1.0)
    between = skin_colour(torch.linspace(-60, 70, 60).view(-1, 1, 1))[..., 0, 0]
    assert (between[1:] > between[:-1]).all()


def test_area_is_the_one_drawn_even_where_the_border_cuts_the_lesion() -> None:
    outline = outlines(area_min=0.3, area_max=0.3, border_touch=1)
    centres = pixel_centres(256, CPU)
    masks = outline.mask(centres[None, None, :], centres[None, :, None]).float()
    assert (masks.mean((1, 2)) - 0.3).abs().max() < 2e-3
    frame = torch.ones(256, 256, dtype=torch.bool)
    frame[1:-1, 1:-1] = False
    assert masks[:, frame].amax(1).mean() > 0.95


def test_masks_are_the_polygons_of_their_knots() -> None:
    outline = outlines()
    size = 200
    centres = pixel_centres(size, CPU)
    masks = outline.mask(centres[None, None, :], centres[None, :, None]).numpy()
    angles = np.array(knot_angles())
    for case in range(len(SEEDS)):
        radius = outline.knots[case, :, 0].numpy()
        x = outline.centre[0][case].item() + radius * np.cos(angles)
        y = outline.centre[1][case].item() + radius * np.sin(angles)
        pixels = (np.stack([y, x], -1) + 1) * size / 2 - 0.5
        polygon = polygon2mask((size, size), pixels)
        assert (polygon & masks[case]).sum() / (polygon | masks[case]).sum() > 0.98


def test_reach_is_the_farthest_pixel_of_the_outline() -> None:
    outline = outlines(border_touch=0, area_max=0.2)
    centres = pixel_centres(200, CPU)
    inside = outline.mask(centres[None, None, :], centres[None, :, None])
    distance = (centres[None, None, :].square() + centres[None, :, None].square()).sqrt()
    farthest = torch.where(inside, distance, torch.zeros(())).flatten(1).amax(1)
    origin = torch.zeros(len(SEEDS), 1, 1)
    assert torch.allclose(outline.reach(origin, origin).flatten(), farthest, atol=0.02)


def test_thin_tips_that_come_apart_on_a_coarse_grid_are_left_out() -> None:
    outline = outlines()
    knots = outline.knots.clone()
    knots[..., 0] = 0.3
    knots[:, 3, 0] = 0.9  # a spike much thinner than a pixel
    spiked = Outline(outline.centre, outline.radius, knots)
    centres = pixel_centres(48, CPU)
    grid = (centres[None, None, :], centres[None, :, None])
    assert ((spiked.distance(*grid)[0] < 0).sum((1, 2)) > spiked.mask(*grid).sum((1, 2))).any()
