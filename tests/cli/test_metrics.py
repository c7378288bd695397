from __future__ import annotations

import json
from pathlib import Path

import pytest

SETTINGS = ("--metric", "mse(resamples=20)", "--metric", "psnr(resamples=20)")


def test_a_table_tells_values_samples_and_conventions(cli, folder_of_discs):
    result = cli("metrics", folder_of_discs, folder_of_discs, *SETTINGS, "--output", "found.json")
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    for words in ("MSE 0 0 to 0 12 | 12", "PSNR inf", "data_range 1"):
        assert words in told
    assert json.loads(Path("found.json").read_text())["measured"][1]["value"] is None


def test_json_is_one_document_with_splits(cli, folder_of_discs):
    result = cli("metrics", folder_of_discs, folder_of_discs, *SETTINGS, "--split-a", "train", "--json", "--size", 24)
    found = json.loads(result.stdout)
    assert [item["images"] for item in found["measured"]] == [[8, 8]] * 2
    assert found["datasets"][0]["images"] == 8 and found["datasets"][1]["images"] == 12 and found["size"] == 24


def test_missing_weights_are_refused_by_the_name_of_the_file(cli, folder_of_discs, monkeypatch, tmp_path):
    monkeypatch.setenv("TORCH_HOME", str(tmp_path / "no-hub"))
    result = cli("metrics", folder_of_discs, folder_of_discs, "-m", "fid", "-m", "mse", "--json")
    assert result.exit_code == 2
    assert "inception-2015-12-05-6726825d.pth" in result.stderr and "segmenter" in result.stderr
    found = json.loads(result.stdout)
    assert [item["metric"] for item in found["refused"]] == ["fid"] and len(found["measured"]) == 1


@pytest.mark.parametrize(
    ("metric", "told"),
    [
        ("papyrus", "no metric is called 'papyrus'"),
        ("mse(data_range=-1)", "metric mse: data_range"),
        ("mse(x=1)", "unknown key 'x'"),
        ("ms-ssim", "161x161"),
        ("lpips-diversity", "among"),
    ],
)
def test_bad_input_is_one_line(cli, folder_of_discs, metric, told):
    result = cli("metrics", folder_of_discs, folder_of_discs, "-m", metric, "-q")
    assert result.exit_code == 2 and told in result.stderr and len(result.stderr.splitlines()) == 1


def test_hostile_names_are_escaped(cli, folder_of_discs):
    root = Path(folder_of_discs.removeprefix("folder:"))
    hostile = root.rename(root.with_name("di\x1b[31mscs"))
    result = cli("metrics", f"folder:{hostile}", f"folder:{hostile}", *SETTINGS)
    assert result.exit_code == 0 and "\x1b" not in result.stdout and "\\x1b[31m" in result.stdout
