"""A study of classifiers: verdicts by accuracy and macro F1, tables of all rates, and the trainer's own figures."""

from __future__ import annotations

from collections import Counter

import pytest

import lesionforge as lf

STUDY = """
name = "classes"
[study]
seeds = [0, 1, 2]
folds = 2
[data]
source = "phantom(count=90, seed=1, size=32, fractions=[0.4, 0.2, 0.4])"
[synthetic.phantoms]
data = "phantom(count=24, seed=2, size=32)"
[model.squeezenet]
use = "classification"
architecture = "squeezenet1_1"
size = 32
steps = 3
batch_size = 8
[[arm]]
name = "R"
real = true
[[arm]]
name = "R+S"
real = true
synthetic = "phantoms"
"""


@pytest.fixture(scope="module")
def results(tmp_path_factory, one_thread_for_the_module):
    return lf.Study.from_toml(STUDY).run(output=tmp_path_factory.mktemp("classes") / "study", device="cpu")


def test_verdicts_are_by_accuracy_and_macro_f1(results):
    assert [verdict["metric"] for verdict in results.summary()["verdicts"]] == ["accuracy", "f1_macro"]
    rows = {row["metric"]: row for row in results.table("comparisons")}
    assert {"sensitivity", "specificity", "precision", "f1_micro", "f1_weighted", "auroc", "ece"} <= set(rows)
    assert rows["accuracy"]["runs"] == rows["f1_macro"]["runs"] == "6"
    images, lesions = int(rows["f1_macro"]["images"]), int(rows["f1_macro"]["lesions"])
    assert images == int(rows["accuracy"]["images"]) >= lesions > 20
    assert rows["auroc"]["lesions"] == "0" and rows["auroc"]["p_image_t"] == ""


def test_differences_are_those_of_the_trainers_own_figures(results):
    cells = results.table("cells")
    for row in results.table("comparisons"):
        means = {arm: [float(c[row["metric"]]) for c in cells if c["arm"] == arm] for arm in ("R", "R+S")}
        difference = sum(means["R+S"]) / 6 - sum(means["R"]) / 6
        assert float(row["difference"]) == pytest.approx(difference, abs=1e-9)
        assert float(row["low"]) <= float(row["difference"]) <= float(row["high"])


def test_the_page_has_all_rates_and_the_images_that_most_runs_take_for_another_class(results):
    page = results.report.read_text()
    assert all(name in page for name in ("Sensitivity", "AUROC", "ECE", "F1 weighted"))
    right = Counter()
    for row in results.table("per_image"):
        right.update({row["image_id"]: int(float(row["correct"]))} if row["arm"] == "R+S" else {})
    worst, share = min(right.items(), key=lambda item: item[1])
    assert share < 6
    shown = page[page.index('id="images"') :]
    assert "Worst." in shown and f"to {share / 6:.0%} of runs" in shown and worst in shown
    assert "Dice" not in shown and "truth" not in shown
