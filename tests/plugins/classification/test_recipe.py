"""A whole recipe with classifiers: R labels and screens the synthetic cases, R+S learns from both."""

from __future__ import annotations

import json

from lesionforge.core.recipe import Recipe

RECIPE = """
name = "classes"

[data]
source = "phantom(count=40, size=32)"

[train.R]
use = "classification"
architecture = "timm:test_resnet"
size = 32
steps = 3

[synthesis]
count = 6
batch_size = 6
shard_size = 6

[[stage]]
use = "phantom"
size = 32

[[stage]]
use = "classifier"
checkpoint = "train:R"
labels = "all"

[[stage]]
use = "agreement"
checkpoint = "train:R"

[train."R+S"]
use = "classification"
on = ["real", "synthetic"]
architecture = "timm:test_resnet"
size = 32
steps = 3
"""


def test_classifiers_label_screen_and_are_compared(tmp_path):
    (tmp_path / "classes.toml").write_text(RECIPE)
    run = Recipe.load(tmp_path / "classes.toml").run(output=tmp_path / "run", device="cpu")
    cases = list(run.cases())
    assert len(cases) == 6 and all(case.verdict["kept"] for case in cases)
    assert all({"classifier_confidence", "label_probability", "label_margin"} <= case.scores.keys() for case in cases)
    for name in ("R", "R+S"):
        folder = tmp_path / "run" / "train" / name
        assert 0 <= json.loads((folder / "metrics.json").read_text())["f1_macro"] <= 1
        assert (folder / "per_image.csv").exists()
    assert "R+S minus R" in (tmp_path / "run" / "report" / "index.html").read_text()
    assert run.verify().ok
