"""R against R+S: which jobs are compared, what the interval rests on, and what is said of it."""

from __future__ import annotations

import re

import numpy as np
import pytest

from lesionforge.core.errors import StoreError
from lesionforge.core.recipe import Job
from lesionforge.core.report.comparison import CAUTION, classification_jobs, compare_jobs, segmentation_jobs, verdict
from lesionforge.core.report.statistics import PairedDifference
from lesionforge.core.report.training import job_views, read_curves
from lesionforge.core.report.writer import render

CONFIG = {"architecture": "dilated-unet", "steps": 200}
METRICS = {"dice": 0.8, "iou": 0.7}
IMAGES = [f"real-{row:03d}" for row in range(40)]


def dices(seed, shift=0.0):
    values = np.random.default_rng(0).uniform(0.6, 0.9, len(IMAGES)) + np.random.default_rng(seed).normal(0, 0.005, 40)
    return dict(zip(IMAGES, (values + shift).tolist(), strict=True))


def arms(folder, *jobs, **dice):
    folder.begin(jobs=jobs)
    for job in jobs:
        folder.job(job.name, metrics=METRICS, dice=dice.get(job.name.replace("-", "_"), dices(1)))
    return job_views(folder.open())


REAL = Job("r", "segmentation", ("real",), CONFIG)
BOTH = Job("rs", "segmentation", ("real", "synthetic"), CONFIG)
ALONE = Job("s", "segmentation", ("synthetic",), CONFIG)


@pytest.mark.parametrize(
    ("low", "mean", "high", "words"),
    [
        (-0.004, 0.002, 0.008, "Dice: no gain shown: +0.2 points, 95 % CI −0.4 to +0.8, one seed, n = 439"),
        (0.004, 0.012, 0.02, "Dice: gain on these test images: +1.2 points, 95 % CI +0.4 to +2.0, one seed, n = 439"),
        (-0.03, -0.02, -0.01, "Dice: loss on these test images: −2.0 points, 95 % CI −3.0 to −1.0, one seed, n = 439"),
        (0.0, 0.01, 0.02, "Dice: no gain shown: +1.0 points, 95 % CI +0.0 to +2.0, one seed, n = 439"),
    ],
)
def test_the_verdict_follows_from_the_interval(low, mean, high, words):
    found = verdict("Dice", PairedDifference(mean, low, high, 439, 431))
    assert re.sub(r"\s", " ", found) == words


def test_jobs_are_compared_where_only_their_data_differ(folder):
    other = Job("other", "segmentation", ("real", "synthetic"), {**CONFIG, "steps": 100})
    stranger = Job("stranger", "classification", ("real", "synthetic"), CONFIG)
    views = arms(folder, REAL, BOTH, ALONE, other, stranger)
    found = [(comparison.job.job.name, comparison.baseline.job.name) for comparison in compare_jobs(views, None)]
    assert found == [("rs", "r"), ("s", "r")]


def test_two_jobs_on_the_same_data_are_not_compared(folder):
    views = arms(folder, REAL, Job("r2", "segmentation", ("real",), CONFIG))
    assert len(segmentation_jobs(views)) == 2
    assert compare_jobs(views, None) == []


def test_a_true_gain_is_seen_with_its_caution(folder, make_real):
    views = arms(folder, REAL, BOTH, r=dices(1), rs=dices(2, 0.02))
    (comparison,) = compare_jobs(views, make_real(40))
    dice = comparison.differences["dice"]
    assert dice.low > 0 and dice.mean == pytest.approx(0.02, abs=0.003)
    assert (dice.images, dice.groups, comparison.lesions_known, comparison.groups) == (40, 20, True, "20 lesions")
    assert [words.partition(":")[0] for words in comparison.verdicts] == ["Dice", "IoU"]
    assert "one seed cannot carry the claim" in CAUTION
    assert comparison.job.on == "R+S"


def test_nothing_gives_no_gain(folder):
    (comparison,) = compare_jobs(arms(folder, REAL, BOTH, r=dices(1), rs=dices(1)), None)
    assert all("no gain shown" in words for words in comparison.verdicts)
    assert not comparison.lesions_known and comparison.groups == "40 images"


def test_classifiers_are_compared_by_what_they_get_right(folder, make_real):
    jobs = [Job(job.name, "classification", job.on, {"architecture": "resnet34"}) for job in (REAL, BOTH)]
    folder.begin(jobs=tuple(jobs))
    for job, right in zip(jobs, (20, 30), strict=True):
        folder.job(job.name, metrics={"f1_macro": 0.5, "accuracy": right / 40, "ece": 0.05})
        rows = [
            f"{image},nevus,{'nevus' if n < right else 'wart'},{int(n < right)},0.6" for n, image in enumerate(IMAGES)
        ]
        table = "\n".join(["image_id,label,predicted,correct,probability_nevus", *rows]) + "\n"
        (folder.store.jobs / job.name / "per_image.csv").write_text(table)
    views = job_views(folder.open())
    assert (segmentation_jobs(views), len(classification_jobs(views))) == ([], 2)
    (comparison,) = compare_jobs(views, make_real(40))
    assert comparison.differences["correct"].mean == pytest.approx(0.25)
    assert [words.partition(":")[0] for words in comparison.verdicts] == ["Accuracy"]
    page = render(folder.manifest().open(), make_real(40))
    assert '<section id="classes">' in page and '<section id="worth">' not in page
    assert "R+S minus R" in page and "Accuracy: gain on these test images" in page


def test_what_weakens_a_comparison_is_said(folder):
    folder.begin(jobs=(REAL, BOTH))
    folder.job("r", metrics=METRICS, dice=dices(1), steps=200)
    fewer = {image: value for image, value in dices(2).items() if image != "real-007"}
    folder.job("rs", metrics=METRICS, dice=fewer, steps=420)
    (comparison,) = compare_jobs(job_views(folder.open()), None)
    assert [remark.partition(" ")[0] for remark in comparison.remarks] == ["The", "1", "A"]
    assert comparison.differences["dice"].images == 39


def test_unfinished_jobs_and_images_without_a_score_are_left_out(folder):
    folder.begin(jobs=(REAL, BOTH)).job("r", metrics=METRICS, dice=dices(1)).job("rs", dice=dices(2))
    assert compare_jobs(job_views(folder.open()), None) == []
    (folder.store.jobs / "rs" / "metrics.json").write_text('{"dice": null}')
    table = folder.store.jobs / "rs" / "per_image.csv"
    table.write_text("image_id,dice,iou\nreal-000,,0.5\nreal-001,0.5,nan\nreal-002,0.5,0.4\n")
    (comparison,) = compare_jobs(job_views(folder.open()), None)
    assert {name: change.images for name, change in comparison.differences.items()} == {"dice": 2, "iou": 2}


@pytest.mark.parametrize("text", ["dice\n0.5\n", "image_id,dice\na,high\n", "image_id,dice\na\n"])
def test_a_damaged_table_is_named(folder, text):
    views = arms(folder, REAL, BOTH)
    (folder.store.jobs / "rs" / "per_image.csv").write_text(text)
    with pytest.raises(StoreError, match=r"per_image\.csv is no table"):
        compare_jobs(views, None)


def test_curves_are_thinned_and_keep_their_ends(tmp_path):
    file = tmp_path / "curves.csv"
    rows = [f"{step},{1 / step},{'' if step % 10 else step},nan" for step in range(1, 5001)]
    file.write_text("\n".join(["step,loss,val,broken", *rows]) + "\n")
    columns, last = read_curves(file)
    assert last == 5000 and set(columns) == {"loss", "val"}
    assert columns["loss"][0] == (1, 1.0) and columns["loss"][-1] == (5000, 1 / 5000)
    assert len(columns["loss"]) <= 601 and len(columns["val"]) == 500
    assert read_curves(tmp_path / "none.csv") == ({}, None)


@pytest.mark.parametrize("text", ["loss\n0.5\n", "step,loss\n1,high\n", "step,loss\n1,2,3\n"])
def test_damaged_curves_are_named(tmp_path, text):
    (tmp_path / "curves.csv").write_text(text)
    with pytest.raises(StoreError, match=r"curves\.csv is no table"):
        read_curves(tmp_path / "curves.csv")
