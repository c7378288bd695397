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
