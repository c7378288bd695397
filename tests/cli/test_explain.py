from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch
from PIL import Image

from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.core.loading import load_dataset
from lesionforge.core.registry import default_registry


@pytest.fixture
def data(folder_of_discs):
    root = Path(folder_of_discs.removeprefix("folder:"))
    names = sorted(path.stem for path in (root / "images").iterdir())
    rows = [f"{name},{('nevus', 'melanoma')[number % 2]}" for number, name in enumerate(names)]
    (root / "labels.csv").write_text("\n".join(["image_id,label", *rows]) + "\n")
    return folder_of_discs


@pytest.fixture
def train(cli, data, tmp_path):
    """Function that trains a tiny classifier for a step."""

    def make(name, architecture="timm:test_resnet"):
        folder = tmp_path / name
        folder.mkdir()
        values = {"architecture": architecture, "size": 32, "steps": 1}
        trainer = default_registry().create("trainer", "classification", values, where="test")
        trainer.setup(Context(torch.device("cpu"), name=name))
        discs: Dataset = load_dataset(data)
        trainer.train(discs, None, folder)
        return folder

    return make


def test_several_classifiers_are_drawn_on_one_sheet(cli, data, train):
    arguments = (train("R"), train("R+S"), "--data", data, "--split", "all", "--count", 4)
    result = cli("explain", *arguments, "--size", 64, "--output", "sheet.png", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    assert "R+S" in result.stdout and "sheet.png" in result.stdout
    with Image.open("sheet.png") as sheet:
        assert sheet.width > 7 * 64 and sheet.height > 4 * 64

    result = cli("explain", *arguments, "--method", "saliency, gradcam", "-o", "other.png", "--json")
    found = json.loads(result.stdout)
    assert found["checkpoints"] == ["R", "R+S"] and found["methods"] == ["saliency", "gradcam"]
    assert len(found["cases"]) == 4 and {case["label"] for case in found["cases"]} == {"nevus", "melanoma"}
    assert set(found["cases"][0]["explanations"][1]) == {"checkpoint", "predicted", "probability", "heat_in_lesion"}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["absent", "--split", "all"], "absent holds no classifier"),
        (["absent", "--split", "all", "--method", "gradcam,shap"], "no method 'shap'"),
        (["absent", "--split", "val2"], "no split 'val2'"),
    ],
)
def test_bad_input_is_one_line_and_writes_nothing(cli, data, arguments, told):
    result = cli("explain", *arguments, "--data", data, "--output", "sheet.png", "-q")
    assert result.exit_code == 2 and told in result.stderr and len(result.stderr.splitlines()) == 1
    assert not Path("sheet.png").exists()


def test_networks_of_tokens_name_the_methods_they_have(cli, data, train):
    folder = train("tokens", "timm:test_vit")
    result = cli("explain", folder, "--data", data, "--split", "all", "--output", "sheet.png", "-q")
    assert result.exit_code == 2 and "take the methods saliency and occlusion" in result.stderr


CLASSIFIERS = """
[data]
source = "phantom(count=40, size=32)"

[train.short]
use = "classification"
architecture = "timm:test_resnet"
size = 32
steps = 1

[train.long]
use = "classification"
architecture = "timm:test_resnet"
size = 32
steps = 2
"""


def test_a_report_shows_where_the_classifiers_of_its_run_look(cli):
    Path("two.toml").write_text(CLASSIFIERS)
    assert cli("run", "two.toml", "-o", "out", "--device", "cpu", "-q").exit_code == 0
    page = Path("out/report/index.html")
    assert "Where each classifier looks" not in page.read_text()

    result = cli("report", "out", "--explain", "--device", "cpu")
    assert result.exit_code == 0, result.stderr
    with Image.open("out/report/heat-maps.png") as sheet:
        assert sheet.width > 7 * 128 and sheet.height > 6 * 128
    explained = page.read_text()
    assert "Where each classifier looks, on the same test images (phantoms)" in explained

    assert cli("report", "out", "-q").exit_code == 0
    assert page.read_text() == explained


def test_a_run_without_a_classifier_has_nothing_to_explain(cli):
    assert cli("run", "blobs | threshold", "-n", 2, "-o", "out", "-q").exit_code == 0
    result = cli("report", "out", "--explain", "-q")
    assert result.exit_code == 2 and "name the run's real data with --data" in result.stderr
    result = cli("report", "out", "--explain", "--data", "phantom(count=40, size=32)", "-q")
    assert result.exit_code == 2 and "no finished training of out is a classifier" in result.stderr
    assert not Path("out/report/heat-maps.png").exists()
