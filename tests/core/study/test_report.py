"""The page of a study says what its numbers say, and nothing that it holds can break it."""

from __future__ import annotations

import re
from collections import Counter
from html import unescape

import pytest

from lesionforge.core.study.recipe import Study


@pytest.fixture(scope="module")
def page(tmp_path_factory, study_registry, toy_text, make_discs):
    folder = tmp_path_factory.mktemp("pages") / "study"
    text = toy_text.replace("[model.pixels]", '[model."<b>other"]\nuse = "pixels"\nsteps = 16\n[model.pixels]')
    text = (
        text.replace("ratio = 1.0", "ratio = [0.5, 1.0]")
        + '[[external]]\nname = "far"\ndata = "toy-discs(first=900)"\n'
    )
    study = Study.from_toml(text.replace("seeds = [0, 1]", "seeds = [0, 1, 2]"))
    results = study.run(output=folder, data=make_discs(48), registry=study_registry(), device="cpu")
    return results.report.read_text(), results


def unescaped(told, label):
    return [unescape(text) for text in re.findall(rf"<b>{label}: (.*?)\.</b>", told)]


def test_verdicts_of_every_comparison_stand_first(page):
    html, results = page
    told = html[html.index('id="answer"') : html.index('id="remarks"')]
    wanted = [v["verdict"] for v in results.summary()["verdicts"] if v["test"] == "test"]
    assert len(wanted) == 2 * 2 * 3 * 2 and "<details open>" in told
    for label in ("Dice", "IoU"):
        found = Counter(text.partition(":")[0] for text in unescaped(told, label))
        listed = ", ".join(f"{finding} in {number}" for finding, number in found.most_common())
        assert f"{label}, 12 comparisons: {listed}." in unescape(told)
    assert [unescape(text) for text in re.findall(r"<b>(?:Dice|IoU): (.*?)\.</b>", told)] == wanted


def test_tables_hold_mean_and_spread_of_runs(page):
    html, results = page
    rows = [
        r
        for r in results.table("cells")
        if (r["arm"], r["model"], r["test"], r["real_count"]) == ("R", "pixels", "test", "6")
    ]
    mean = sum(float(row["dice"]) for row in rows) / 3
    assert len(rows) == 3 and f"{mean:.4f} ±" in html


@pytest.mark.parametrize(
    "what",
    [
        "over the number of real training images",
        "over the number of synthetic cases",
        "Each model by its parameters",
        "Best. Dice is the mean over runs",
        "Worst. Dice is the mean over runs",
        "without synthetic cases",
        "external set far",
        "The test split has 16 images",
        "A rank test over 3 runs cannot give a p below 0.25",
        "comes from is not known",
        "kept for validation",
    ],
)
def test_the_page_shows(page, what):
    assert what in page[0]


def test_text_of_users_is_escaped_and_nothing_comes_from_outside(page):
    html, _ = page
    assert "<b>other" not in html and "&lt;b&gt;other" in html
    assert not re.search(r"<script|https?://(?!www\.w3\.org)|@import", html)


def test_the_same_results_give_the_same_bytes(page, study_registry, make_discs):
    html, results = page
    again = results.study.run(
        output=results.path, data=make_discs(48), registry=study_registry(), device="cpu", resume=True
    )
    assert again.report.read_text() == html
