from __future__ import annotations

import pytest

from lesionforge.core.report.charts import LEFT, PLOT_HEIGHT, PLOT_WIDTH, TOP
from lesionforge.core.report.series import Series, arrow_chart, series_chart


def inside(chart):
    return all(LEFT <= mark.x <= LEFT + PLOT_WIDTH and TOP <= mark.y <= TOP + PLOT_HEIGHT for mark in chart.marks)


def test_a_series_is_a_line_through_means_with_its_runs_as_small_dots():
    chart = series_chart(
        "Dice", [Series("R", [(50, [0.6, 0.7]), (200, [0.8, 0.8])]), Series("R+S", [(50, [0.7])])], x_label="n"
    )
    assert [path.kind for path in chart.paths] == ["series-0"]
    means = [mark for mark in chart.marks if mark.kind == "series-0"]
    runs = [mark for mark in chart.marks if mark.kind == "series-0 run"]
    assert len(means) == 2 and len(runs) == 4 and inside(chart)
    assert means[0].y == pytest.approx((runs[0].y + runs[1].y) / 2)
    assert "R 0.65 at 50, 0.8 at 200; R+S 0.7 at 50" in chart.description


@pytest.mark.parametrize(("places", "logarithmic"), [((50, 200), False), ((50, 1500), True), ((0, 1500), False)])
def test_places_far_apart_stand_on_a_logarithmic_axis(places, logarithmic):
    chart = series_chart("Dice", [Series("R", [(place, [0.5]) for place in places])], x_label="n")
    assert (chart.note == "logarithmic scale") is logarithmic and inside(chart)


def test_arrows_lead_from_hollow_to_full_dots_either_way():
    chart = arrow_chart(
        "IoU", [("small", 0.2, 0.7, 0.8), ("large", 60.0, 0.8, 0.75), ("same", 30.0, 0.7, 0.7)], x_label="M"
    )
    starts, ends = ([mark for mark in chart.marks if mark.kind == kind] for kind in ("from", "to"))
    assert ends[0].y < starts[0].y and ends[1].y > starts[1].y and inside(chart)
    assert [mark.label for mark in ends] == ["small", "large", "same"]
    assert len(chart.paths) == 4  # none for what did not move


def test_one_place_and_one_value_have_axes_too():
    assert inside(series_chart("Dice", [Series("R", [(50, [0.5])])], x_label="n"))
