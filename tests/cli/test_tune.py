from __future__ import annotations

import csv
import json
import signal
import time
from pathlib import Path

import pytest

import lesionforge as lf

CHAIN = "blobs(size=8) | threshold | mask-quality(min_area=0.0, max_components=64, max_holes=1.0, max_border=1.0)"
SEARCH = ("--search", "threshold.level=0.1..0.9", "--search", "mask-quality.max_area=0.5|1.0")
FEW = ("--trials", 3, "--count", 4)


@pytest.fixture
def small(cli):
    """Function that searches a small chain."""

    def call(*arguments, search=SEARCH, few=FEW):
        return cli("tune", CHAIN, *search, "--metric", "score:mask_area", "--direction", "minimize", *few, *arguments)

    return call


def line_of_error(result, code=2):
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def test_a_search_leaves_runs_tables_a_picture_and_a_recipe(small, cli):
    result = small("--output", "tuned")
    assert result.exit_code == 0, result.stderr
    tuning = lf.Tuning("tuned")
    assert len(tuning.trials) == 3 and tuning.best is not None
    told = " ".join(result.stdout.split())
    for words in ("mean mask_area, lower is better", "threshold.level", f"trial {tuning.best.number}", "best.toml"):
        assert words in told
    assert "trial 0 in " in result.stderr and "trials: 0 of 3" in result.stderr
    assert {file.name for file in Path("tuned").iterdir() if file.name[0] != "."} == {
        "best.toml",
        "history.csv",
        "history.png",
        "study.sqlite3",
        "trials",
        "tuning.json",
    }
    assert cli("verify", "tuned/trials/0001").exit_code == 0
    assert cli("run", "tuned/best.toml", "--no-report", "-q").exit_code == 0


def test_json_is_one_document(small):
    found = json.loads(small("-o", "tuned", "--json").stdout)
    best = min(found["trials"], key=lambda trial: trial["value"])
    assert found["best"] == best and found["metric"] == "score:mask_area" and len(found["trials"]) == 3
    assert found["search"] == {"threshold.level": "0.1..0.9", "mask-quality.max_area": "0.5|1.0"}


def test_quiet_says_nothing(small):
    result = small("-o", "tuned", "-q")
    assert (result.exit_code, result.output) == (0, "")


def test_a_dry_run_tells_everything_and_creates_nothing(small, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = small("--dry-run")
    assert result.exit_code == 0, result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    told = " ".join(result.stdout.split())
    for words in ("-tuned (new)", "to minimize", "level=0.1..0.9", "max_area=0.5|1.0", "trials 3", "cases 4 in"):
        assert words in told
    plan = json.loads(small("--dry-run", "--json", search=("-s", "blobs.size=8|16")).stdout)
    assert plan["combinations"] == 2 and plan["trials"] == {"all": 2, "finished": 0} and plan["obstacle"] is None


def test_a_search_goes_on_from_its_folder(small, cli):
    small("-o", "tuned", "-q")
    before = Path("tuned/history.csv").read_text()
    plan = json.loads(cli("tune", "tuned", "--resume", "--trials", 5, "--dry-run", "--json").stdout)
    assert plan["trials"] == {"all": 5, "finished": 3}
    assert cli("tune", "tuned", "--resume", "--trials", 4, "-q").exit_code == 0
    assert Path("tuned/history.csv").read_text().startswith(before) and len(lf.Tuning("tuned").trials) == 4
    assert "add --resume" in line_of_error(cli("tune", "tuned"))
    refused = line_of_error(cli("tune", "tuned", "--resume", "--metric", "kept", "--count", 4, "--seed", 1))
    assert "leave out --seed, --metric, --count" in refused
    assert "add --resume" in line_of_error(small("-o", "tuned"))
    assert "count: was 4, is 6" in line_of_error(small("-o", "tuned", "--resume", few=("--count", 6)))


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["blobs"], "nothing to optimise: name one --metric"),
        (["blobs", "-m", "kept"], "nothing to search"),
        (["blobs", "-m", "kept", "-s", "blobs.sise=1..2"], "unknown key 'sise'; allowed are size, label"),
        (["blobs", "-m", "kept", "-s", "blobs.size=1..8"], "--search blobs: size = 1: input should be greater than"),
        (["blobs", "-m", "kept", "-s", "blob.size=8..9"], "no stage or training is called 'blob'"),
        (["blobs", "-m", "kid", "-s", "blobs.size=8..9", "--split", "test"], "would leak it"),
        (["blobs", "-m", "kid", "-s", "blobs.size=8..9"], "--metric kid needs real data; name some"),
        (["blobs", "-m", "kept(x=1)", "-s", "blobs.size=8..9"], "no metric is called 'kept'"),
        (["demo", "-m", "R+S.dice", "-s", "ddpm.num_inference_steps=5..9"], "measured on the test split"),
        (["demo", "-m", "kept", "-s", "ddpm.num_inference_steps=0..9"], "num_inference_steps = 0"),
        (["demo", "-m", "kept", "-s", "R+S.steps=5..9"], "--search R+S: trials do without it"),
    ],
)
@pytest.mark.parametrize("dry", [[], ["--dry-run"]])
def test_bad_input_is_one_line(cli, arguments, told, dry, tmp_path):
    assert told in line_of_error(cli("tune", *arguments, *dry))
    assert not (tmp_path / "runs").exists()


def test_a_sample_that_is_too_small_is_refused_before_the_first_trial(cli, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-hub"))
    arguments = ["-s", "blobs.size=8..9", "--data", "phantom(count=20, size=32)", "--count", 1]
    assert "needs at least 2 images in each set" in line_of_error(cli("tune", "blobs", "-m", "kid", *arguments))
    assert "no weights" in line_of_error(cli("tune", "blobs", "-m", "fid", *arguments))
    assert "no image ids in common" in line_of_error(cli("tune", "blobs", "-m", "ssim", *arguments))
    assert not (tmp_path / "runs").exists()


def test_a_search_without_a_value_ends_with_the_reason(cli):
    arguments = ["-s", "mask-quality.min_area=0.97|0.98", "-m", "kept", "-n", 2, "-o", "tuned"]
    result = cli("tune", "phantom(size=32) | mask-quality", *arguments)
    assert result.exit_code == 2 and "no trial has a value; the last one: no case was accepted" in result.stderr
    assert "trials 0, 1 failed: no case was accepted; rejected by mask-quality: mask_area (2)" in result.stdout


def test_an_interrupted_search_says_how_to_go_on(process, tmp_path):
    chain = f'blobs(size=8) | slow(marker="{tmp_path}/fast") | threshold'
    options = ("-s", "threshold.level=0.1..0.9", "-m", "kept", "--trials", 2, "-n", 4, "--batch-size", 1)
    running = process("tune", chain, *options, "-o", "a folder")
    while not (tmp_path / "a folder/trials/0000/manifest.json").exists():
        assert running.poll() is None, running.communicate()
        time.sleep(0.02)
    running.send_signal(signal.SIGINT)
    _, err = running.communicate(timeout=120)
    assert running.returncode == 130
    assert err.splitlines()[-1].endswith("go on with: lesionforge tune 'a folder' --resume")
    (tmp_path / "fast").touch()
    again = process("tune", "a folder", "--resume", "-q")
    assert again.communicate(timeout=240) == ("", "") and again.returncode == 0
    with (tmp_path / "a folder/history.csv").open() as table:
        assert [row["state"] for row in csv.DictReader(table)] == ["complete", "complete"]
