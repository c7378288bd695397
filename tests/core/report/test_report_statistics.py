"""The numbers on the page against SciPy, scikit-image, OpenCV and shapes whose measures are known."""

from __future__ import annotations

import math

import cv2
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from lesionforge.core.report.axes import Axis, axis_for
from lesionforge.core.report.charts import LEFT, PLOT_HEIGHT, PLOT_WIDTH, WIDTH, Layer, histogram, intervals
from lesionforge.core.report.shapes import measure
from lesionforge.core.report.statistics import (
    EvenSample,
    chance_gap,
    finite,
    kolmogorov_smirnov,
    paired_difference,
    quartiles,
    spread,
)

numbers = st.floats(-1e6, 1e6)
samples = st.lists(numbers, min_size=1, max_size=40).map(np.array)


@pytest.mark.filterwarnings("ignore:divide by zero:RuntimeWarning")
@given(samples, samples)
def test_kolmogorov_smirnov_equals_scipy(first, second):
    assert kolmogorov_smirnov(first, second) == pytest.approx(
        stats.ks_2samp(first, second, method="asymp").statistic, abs=1e-12
    )


def test_the_chance_gap_is_exceeded_once_in_twenty_times():
    rng = np.random.default_rng(0)
    gaps = [kolmogorov_smirnov(rng.normal(size=80), rng.normal(size=120)) for _ in range(2000)]
    assert np.mean(np.array(gaps) > chance_gap(80, 120)) == pytest.approx(0.05, abs=0.02)


def test_without_groups_the_interval_is_scipys_percentile_bootstrap():
    changes = np.random.default_rng(1).normal(0.004, 0.05, 300)
    found = paired_difference({str(row): value for row, value in enumerate(changes)}, {}, seed=3)
    expected = stats.bootstrap((changes,), np.mean, method="percentile", rng=4, n_resamples=10_000).confidence_interval
    assert found.mean == pytest.approx(changes.mean())
    assert (found.low, found.high) == pytest.approx(tuple(expected), abs=3e-4)
    assert (found.images, found.groups) == (300, 300)


def test_images_of_one_lesion_are_drawn_together():
    lesions = {f"{lesion}-{image}": f"lesion {lesion}" for lesion in range(40) for image in range(5)}
    by_lesion = np.random.default_rng(2).normal(0, 0.05, 40)
    changes = {image: float(by_lesion[int(image.split("-")[0])]) for image in lesions}
    alone, together = (paired_difference(changes, groups, seed=0) for groups in ({}, lesions))
    assert together.groups == 40 and together.images == 200
    assert together.high - together.low == pytest.approx(math.sqrt(5) * (alone.high - alone.low), rel=0.1)


def test_groups_of_different_sizes_weigh_by_their_images():
    changes = {"a": 1.0, "b": 1.0, "c": 1.0, "d": 0.0}
    found = paired_difference(changes, dict.fromkeys("abc", "one"), seed=0)
    assert (found.mean, found.low, found.high, found.groups) == (0.75, 0.0, 1.0, 2)


def test_the_bootstrap_is_a_function_of_its_seed():
    changes = {str(row): float(value) for row, value in enumerate(np.random.default_rng(3).normal(size=50))}
    assert paired_difference(changes, {}, seed=1) == paired_difference(changes, {}, seed=1)
    assert paired_difference(changes, {}, seed=1) != paired_difference(changes, {}, seed=2)


@given(st.integers(0, 300), st.integers(1, 20))
def test_even_samples_are_even_bounded_and_begin_with_the_first(count, limit):
    sample = EvenSample(2 * limit)
    for item in range(count):
        sample.add(item)
    assert sample.seen == count and len(sample.items) <= 2 * limit
    assert len(sample.items) >= min(count, limit)
    assert len(set(np.diff(sample.items))) <= 1
    assert sample.items[:1] == list(range(count))[:1]


@given(st.integers(0, 300), st.integers(1, 40))
def test_spread_positions_are_distinct_and_inside(count, wanted):
    positions = spread(count, wanted)
    assert len(positions) == min(count, wanted) == len(set(positions))
    assert positions == sorted(positions) and all(0 <= position < count for position in positions)


def test_quartiles_and_finite_values():
    assert quartiles(finite([1, 2, math.nan, 3, math.inf, 4, 5])) == (2, 3, 4)
    assert quartiles(np.empty(0)) is None


@given(samples, st.lists(numbers, max_size=2))
def test_axes_show_their_marks_and_have_ticks_within(values, marks):
    axis = axis_for(values, marks=marks)
    assert axis.low < axis.high
    assert all(axis.low <= mark <= axis.high for mark in marks)
    assert all(-1e-9 <= tick.at <= 1 + 1e-9 for tick in axis.ticks())
    assert len({tick.label for tick in axis.ticks()}) == len(axis.ticks()) <= 12


def test_axes_turn_logarithmic_only_where_values_crowd():
    rng = np.random.default_rng(0)
    assert axis_for(np.exp(rng.normal(0, 2, 500))).log
    assert not axis_for(rng.uniform(0.01, 0.98, 500)).log
    assert not axis_for(-np.exp(rng.normal(0, 2, 500))).log
    axis = Axis(0.01, 100, log=True)
    assert axis.at(np.array([0.001, 0.01, 1, 100, 1e9])).tolist() == pytest.approx([0, 0, 0.5, 1, 1])
    assert [tick.label for tick in axis.ticks()] == ["0.01", "0.1", "1", "10", "100"]


@given(samples, samples)
def test_bars_of_a_histogram_hold_all_cases_once(kept, rejected):
    chart = histogram("score", [Layer("accepted", "kept", kept), Layer("rejected", "rejected", rejected)], None)
    top = 1 / max(sum(bar.height for bar in chart.bars if bar.x == x) for x in {bar.x for bar in chart.bars})
    shares = {kind: sum(bar.height for bar in chart.bars if bar.kind == kind) * top for kind in ("kept", "rejected")}
    whole = len(kept) + len(rejected)
    assert shares["kept"] / sum(shares.values()) == pytest.approx(len(kept) / whole)
    assert all(bar.x >= LEFT and bar.x + bar.width <= LEFT + PLOT_WIDTH and bar.width > 0 for bar in chart.bars)
    assert all(0 < bar.height <= PLOT_HEIGHT for bar in chart.bars)


def test_whole_numbers_get_a_bar_each():
    chart = histogram("components", [Layer("accepted", "kept", np.array([1.0, 1, 2, 4]))], None)
    assert len(chart.bars) == 3
    assert [tick.label for tick in chart.x_ticks] == ["1", "2", "3", "4"]


def test_an_interval_chart_keeps_zero_and_all_bounds_inside():
    chart = intervals("difference", [("Dice", 1.2, 0.4, 2.0), ("IoU", 3.0, 2.5, 3.5)], x_label="points")
    assert all(LEFT <= row.low < row.x < row.high <= WIDTH for row in chart.intervals)
    assert LEFT <= chart.rules[0].x < chart.intervals[0].low
    assert "Dice +1.2 (+0.4 to +2.0)" in chart.description


def ellipse(size=200, wide=60, high=30, angle=0):
    mask = np.zeros((size, size), np.uint8)
    cv2.ellipse(mask, (size // 2, size // 2), (wide, high), angle, 0, 360, 1, -1)
    return mask


@pytest.mark.parametrize("angle", [0, 30, 90])
def test_shape_of_an_ellipse(angle):
    found = measure(ellipse(angle=angle))
    assert found["area"] == pytest.approx(math.pi * 60 * 30 / 200**2, rel=0.03)
    assert found["eccentricity"] == pytest.approx(math.sqrt(1 - 0.25), abs=0.01)
    assert (found["center_x"], found["center_y"]) == pytest.approx((0.5025, 0.5025), abs=0.003)
    assert found["border_touch"] == 0
    assert found["irregularity"] == pytest.approx(0, abs=0.02)


def test_a_disc_is_compact_and_a_star_is_not():
    assert measure(ellipse(wide=60, high=60))["compactness"] == pytest.approx(1, abs=0.03)
    angles = np.linspace(0, 2 * np.pi, 720, endpoint=False)
    radius = 55 * (1 + 0.4 * np.cos(7 * angles))
    outline = np.stack([100 + radius * np.cos(angles), 100 + radius * np.sin(angles)], 1).round().astype(np.int32)
    star = np.zeros((200, 200), np.uint8)
    cv2.fillPoly(star, [outline], [1])
    found = measure(star)
    hull = cv2.contourArea(cv2.convexHull(outline))
    assert found["irregularity"] == pytest.approx(1 - cv2.contourArea(outline) / hull, abs=0.02)
    slope = -55 * 0.4 * 7 * np.sin(7 * angles)
    area, length = np.mean(radius**2) * math.pi, np.mean(np.hypot(radius, slope)) * 2 * math.pi
    assert found["compactness"] == pytest.approx(4 * math.pi * area / length**2, rel=0.08)


def test_outlines_are_those_of_the_largest_piece_and_the_rest_of_the_whole_mask():
    mask = np.zeros((100, 100), np.uint8)
    cv2.circle(mask, (50, 50), 20, 1, -1)
    alone = measure(mask)
    mask[:4, :] = 1
    both = measure(mask)
    assert both["compactness"] == alone["compactness"] and both["eccentricity"] == alone["eccentricity"]
    assert both["area"] > alone["area"] and both["center_y"] < alone["center_y"]
    assert both["border_touch"] == pytest.approx((100 + 2 * 3) / (4 * 99))


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("pixels", [[], [(4, 4)], [(4, 4), (4, 5), (4, 6), (4, 7)], [(1, 1), (2, 2), (3, 3)]])
def test_masks_too_small_for_an_outline_are_measured_without_one(pixels):
    mask = np.zeros((9, 9), np.uint8)
    for row, column in pixels:
        mask[row, column] = 1
    found = measure(mask)
    assert found["area"] == len(pixels) / 81
    assert math.isnan(found["center_x"]) == (not pixels)
    assert math.isnan(found["eccentricity"]) == (len(pixels) < 3)
    assert all(not math.isinf(value) for value in found.values())


def test_a_full_mask_touches_all_of_the_border():
    found = measure(np.ones((16, 16), np.uint8))
    assert (found["area"], found["border_touch"], found["center_x"]) == (1, 1, 0.5)
