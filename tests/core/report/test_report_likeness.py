"""Likeness in the report: numbers with intervals, refusals with their reasons."""

from __future__ import annotations

import json

from lesionforge.core.chain import StageSpec
from lesionforge.core.report import write_report
from lesionforge.core.report.likeness import likeness_of

KERNEL = StageSpec("kernel", {"extractor": "segmenter", "weights": "train:R"})
NAME = "kernel distance, segmenter encoder"


def found(value, low, high, pairs=None, name=NAME):
    images = [1800, 200 if value > 0.02 else 64]
    known = {"name": name, "value": value, "low": low, "high": high, "images": images, "groups": images}
    return {**known, "pairs": pairs, "conventions": {"weights": "ab12cd34", "resamples": 1000, "features": None}}


def row(yardstick, synthetic, metric="kernel"):
    return {"metric": metric, "inputs": "0" * 64, "yardstick": yardstick, "synthetic": synthetic}


def run_with(folder, rows, metrics=(KERNEL,)):
    folder.begin(metrics=metrics).manifest().shard(0)
    if rows is not None:
        folder.store.metrics.write_text(json.dumps(rows))
    return folder.open()


def page(run):
    return write_report(run).read_text(encoding="utf-8")


def test_numbers_stand_beside_their_yardstick_and_are_drawn(folder):
    run = run_with(folder, [row(found(0.012, -0.001, 0.02), found(0.25, 0.2, 0.3))])
    likeness = likeness_of(run)
    (line,) = likeness.rows
    assert (line.name, line.conventions) == (NAME, "weights ab12cd34, resamples 1\u202f000, features None")
    assert (line.synthetic.value, line.synthetic.interval) == ("0.25", "0.2 to 0.3")
    assert line.yardstick.sample == "1\u202f800 : 64"
    (chart,) = likeness.charts
    assert [item.label for item in chart.intervals] == ["0.012 (−0.001 to 0.02)", "0.25 (0.2 to 0.3)"]
    assert len(chart.rules) == 1
    text = page(run)
    assert 'href="#likeness"' in text and "No image of the test split took part" in text
    assert "An extractor that was trained in this run" in text


def test_a_mean_over_pairs_has_no_rule_at_zero(folder):
    metrics = (StageSpec("lpips-diversity", {"among": "second"}),)
    likeness = likeness_of(run_with(folder, [row(None, found(0.5, 0.4, 0.6, pairs=900))], metrics))
    assert likeness.charts[0].rules == [] and len(likeness.charts[0].intervals) == 1
    assert likeness.rows[0].synthetic.sample == "1\u202f800 : 200, 900 pairs"
    assert not likeness.trained_here


def test_a_refusal_shows_its_reason(folder):
    reason = "weights <b>missing</b>"
    rows = [row({"reason": reason}, {"reason": reason}, "fid"), row({"reason": "too few"}, found(0.1, None, None))]
    run = run_with(folder, rows, (StageSpec("fid"), KERNEL))
    likeness = likeness_of(run)
    assert [line.refusal for line in likeness.rows] == [reason, ""]
    assert likeness.rows[0].name == "fid" and likeness.charts == ()
    text = page(run)
    assert text.count("weights &lt;b&gt;missing") == 1
    assert "refused: too few" in text


def test_what_is_not_measured_yet_or_not_asked_for(folder, tmp_path):
    text = page(run_with(folder, None))
    assert "have not been measured yet" in text
    other = type(folder)(tmp_path / "other")
    run = run_with(other, None, ())
    assert likeness_of(run) is None and 'id="likeness"' not in page(run)
