from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from lesionforge.core.shipped import RECIPES, shipped_studies
from lesionforge.core.study.recipe import Study

STUDY = """
name = "small"
[study]
seeds = [0, 1]
[synthetic.discs]
data = "{folder}"
[model.unet]
use = "segmentation"
architecture = "dilated-unet"
width = 2
depth = 1
size = 16
steps = 2
batch_size = 2
[[arm]]
name = "R"
real = true
[[arm]]
name = "R+S"
real = true
synthetic = "discs"
count = 4
"""


@pytest.fixture
def study(tmp_path, folder_of_discs):
    # Synthetic cases of another look, so that they are no test images.
    from PIL import Image

    other = tmp_path / "others"
    for name in ("images", "masks"):
        (other / name).mkdir(parents=True)
        for file in Path(folder_of_discs.partition(":")[2], name).iterdir():
            picture = Image.open(file)
            changed = picture.point(lambda value: 255 - value) if name == "images" else picture
            changed.save(other / name / f"other-{file.name}")
    file = tmp_path / "small.toml"
    file.write_text(STUDY.format(folder=f"folder:{other}"))
    return file


def line_of_error(result):
    assert result.exit_code == 2, result.output
    (line,) = result.stderr.splitlines()
    assert line.startswith("error: ")
    return line


def test_a_study_ends_in_verdicts_tables_and_a_report(cli, study, folder_of_discs):
    result = cli("study", study, "--data", folder_of_discs)
    assert result.exit_code == 0, result.stderr
    assert "no gain shown" in result.stdout and "runs/small/report/index.html" in result.stdout
    assert "trained unet, 8 real + 4 discs, seed 1" in result.stderr
    assert "trainings: 4 of 4" in result.stderr or "trainings: 0 of 4" in result.stderr
    kept = sorted(path.name for path in Path("runs/small/results").iterdir())
    assert {"cells.csv", "comparisons.csv", "per_image.csv", "summary.json"} <= set(kept)
    again = cli("study", "runs/small", "--resume", "--json")
    document = json.loads(again.stdout)
    assert document["assembled"] and document["cells"] == 4 and len(document["verdicts"]) == 2
    assert "trained unet" not in again.stderr
    assert "add --resume" in line_of_error(cli("study", "runs/small"))


def test_parts_are_carried_out_apart_and_assembled_last(cli, study, folder_of_discs):
    for part in ("1/2", "2/2"):
        result = cli("study", study, "--data", folder_of_discs, "--shard", part, "-o", "parted", "--quiet")
        assert result.exit_code == 0, result.stderr
        assert not Path("parted/results/summary.json").exists()
    assert json.loads(cli("study", "parted", "--resume", "--json", "--no-report").stdout)["cells"] == 4
    assert not Path("parted/report").exists()


def test_a_dry_run_shows_the_grid_and_creates_nothing(cli, study, folder_of_discs, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = cli("study", study, "--data", folder_of_discs, "--dry-run", "--set", "study.seeds=[0, 1, 2]")
    assert result.exit_code == 0, result.stderr
    told = {" ".join(line.split()) for line in result.stdout.splitlines()}
    assert "trainings 6" in told and "steps 12, equal steps in all arms" in told and "arms R, R+S" in told
    plan = json.loads(
        cli("study", study, "--dry-run", "--json", "--budget", "epochs", "--data", folder_of_discs).stdout
    )
    assert plan["trainings"] == 4 and plan["steps"] == 2 * 50 * (4 + 6) and plan["missing"] == []
    assert sorted(tmp_path.rglob("*")) == before


def test_a_dry_run_tells_what_is_not_there(cli, study, tmp_path):
    study.write_text(study.read_text().replace(f"folder:{tmp_path}/others", "run:nowhere"))
    result = cli("study", study, "--dry-run")
    assert result.exit_code == 0
    told = result.stderr.splitlines()
    assert any(line.startswith("missing: real data: none are named") for line in told)
    assert any(line.startswith("missing: synthetic set discs:") for line in told)


def test_a_dry_run_loads_no_network_library(study, folder_of_discs):
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom lesionforge.cli.main import app\n"
        f"result = CliRunner().invoke(app, ['study', {str(study)!r}, '--data', {folder_of_discs!r}, '--dry-run'])\n"
        "assert result.exit_code == 0, result.output\n"
        "print({'torch', 'diffusers', 'scipy', 'jinja2'} & {name.split('.')[0] for name in sys.modules})\n"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "set()"


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["no-such-study"], "there is no study no-such-study; built in are"),
        (["{study}", "--set", "study.seeds"], "expected PATH=VALUE"),
        (["{study}", "--set", "study.seeds=[0, 0]"], "none twice"),
        (["{study}", "--set", "modell.unet.steps=1"], "there is nothing called 'modell'"),
        (["{study}", "--set", "model.unet.width=0"], "model unet: width = 0"),
        (["{study}", "--budget", "hours"], "--budget: budget = 'hours'"),
        (["{study}", "--shard", "3/2"], "--shard 3/2: expected I/N"),
        (["{study}", "--shard", "all"], "--shard all: expected I/N"),
        (["{study}", "--device", "toaster"], "device 'toaster' cannot be used"),
        (["{study}"], "a study needs real data"),
        (["{study}", "--data", "folder:nowhere"], "nowhere"),
        (["{study}", "--set", "arm.R+S.count=40", "--data", "{data}"], "cases for training, but an arm takes 40"),
        (["{study}", "--set", 'synthetic.discs.recipe="enhanced"', "--data", "{data}"], "there is no recipe enhanced"),
        (["{study}", "--set", 'synthetic.discs.run="nowhere"', "--data", "{data}"], "is no run folder"),
    ],
)
def test_bad_input_is_one_line(cli, study, folder_of_discs, arguments, told):
    filled = [argument.format(study=study, data=folder_of_discs) for argument in arguments]
    assert told in line_of_error(cli("study", *filled))


def test_a_leak_is_one_line_that_says_how_to_go_on(cli, study, folder_of_discs, tmp_path):
    study.write_text(study.read_text().replace(f"folder:{tmp_path}/others", folder_of_discs))
    line = line_of_error(cli("study", study, "--data", folder_of_discs))
    assert "known to synthetic set discs itself" in line and "--allow-leak" in line
    allowed = cli("study", study, "--data", folder_of_discs, "--allow-leak", "--resume")
    assert allowed.exit_code == 0 and "leak: " in allowed.stderr


def test_a_recipe_is_no_study_and_a_study_is_no_recipe(cli, study):
    assert "has no [study]; a recipe is carried out by lesionforge run" in line_of_error(
        cli("study", RECIPES / "demo.toml")
    )
    assert "lesionforge study" in line_of_error(cli("run", study))


@pytest.mark.parametrize("name", sorted(shipped_studies()))
def test_studies_that_come_along_are_valid_and_can_be_planned(name, tmp_path):
    study = Study.load(shipped_studies()[name])
    assert study.description and study.name == Path(name).name
    plan = study.plan(output=tmp_path / "planned")
    assert plan.trainings and plan.missing and plan.obstacle is None
