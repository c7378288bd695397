from __future__ import annotations

import json
from pathlib import Path

import pytest

RECIPE = """
[train.first]
use = "mean"
steps = 2

[train.second]
use = "mean"
steps = 2
start = "train:first"

[train.other]
use = "mean"
steps = 2

[train.both]
use = "mean"
on = ["real", "synthetic"]

[[stage]]
use = "blobs"
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "trainings.toml"
    file.write_text(RECIPE)
    return file


def test_a_trainer_expression_trains_on_the_data(cli, folder_of_discs):
    result = cli("train", "mean(steps=3)", "--data", folder_of_discs, "--output", "out", "--no-report")
    assert result.exit_code == 0, result.stderr
    assert Path("out/train/mean/model.safetensors").is_file()
    assert "trained mean in" in result.stderr
    header, row = (line.split() for line in result.stdout.splitlines()[1:3])
    assert header == ["mean"] and row == ["cases", "2"]


def test_json_holds_the_metrics(cli, folder_of_discs):
    result = cli("train", "mean(steps=1)", "--data", folder_of_discs, "--json", "--no-report")
    assert json.loads(result.stdout)["jobs"] == {"mean": {"cases": 2.0}}


def trained(result):
    assert result.exit_code == 0, result.stderr
    return [job["name"] for job in json.loads(result.stdout)["jobs"]]


def test_only_trainings_on_real_data_are_taken_from_a_recipe(cli, recipe, folder_of_discs):
    plan = ["--data", folder_of_discs, "--dry-run", "--json"]
    assert trained(cli("train", recipe, *plan)) == ["first", "second", "other"]
    assert trained(cli("train", recipe, "--job", "second", *plan)) == ["first", "second"]
    assert trained(cli("train", recipe, "--job", "other", *plan)) == ["other"]


def test_a_finished_training_is_not_done_again(cli, recipe, folder_of_discs):
    arguments = ["train", recipe, "--job", "second", "--data", folder_of_discs, "--no-report", "-o", "out"]
    assert cli(*arguments).exit_code == 0
    written = Path("out/train/second/model.safetensors").stat().st_mtime_ns
    assert cli(*arguments).exit_code == 2
    assert cli(*arguments, "--resume").exit_code == 0
    assert Path("out/train/second/model.safetensors").stat().st_mtime_ns == written
    assert cli("run", "out", "--resume", "--no-report").exit_code == 0
    assert "lesionforge run out --resume" in cli("train", "out").stderr


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["mean"], "training mean needs real data; name some"),
        (["nobody"], "no trainer is called 'nobody'"),
        (["mean(steps=0)"], "training mean: steps = 0: input should be greater than or equal to 1"),
        (["mean:somewhere"], "give the data with --data"),
        (["mean", "--job", "other"], "has no training 'other'; it has mean"),
        (["trainings.toml", "--job", "both"], "use lesionforge run"),
        (["trainings.toml", "--set", "first.steps=0", "--data", "phantom(count=4)"], "training first: steps = 0"),
    ],
)
def test_bad_input_is_one_line(cli, recipe, arguments, told):
    result = cli("train", *arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr and len(result.stderr.splitlines()) == 1
    assert not Path("runs").exists()


def test_precision_governs_trainings(cli, folder_of_discs):
    given = ["--data", folder_of_discs, "--output", "out", "--no-report", "-q"]
    assert cli("train", "mean(steps=1)", *given, "--precision", "fp32").exit_code == 0
    assert json.loads(Path("out/train/mean/job.json").read_text())["precision"] == "fp32"
    assert 'precision = "fp32"' in Path("out/recipe.toml").read_text()
    assert cli("run", "out", "--resume", "--no-report", "-q").exit_code == 0
