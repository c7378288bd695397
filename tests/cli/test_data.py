from __future__ import annotations

import json
from pathlib import Path

import pytest
from PIL import Image

import lesionforge as lf


def test_inspection_counts_and_finds_problems(cli, folder_of_discs):
    images = Path(folder_of_discs.removeprefix("folder:"), "images")
    (images / "disc-003.png").write_bytes(b"no picture")
    result = cli("data", "inspect", folder_of_discs)
    assert result.exit_code == 0, result.stderr
    told = " ".join(result.stdout.split())
    for words in ("images 12, of which", "pixels 16x16 (11)", "masks 12 ", "captions none", "problems 1"):
        assert words in told
    assert "unreadable-image" in told and "disc-003" in told


def test_inspection_as_json_with_a_sheet(cli, folder_of_discs):
    result = cli(
        "data", "inspect", folder_of_discs, "--output", "sheet.png", "--size", 48, "--json", "--split", "train"
    )
    found = json.loads(result.stdout)
    assert found["cases"] == found["splits"]["train"] == 8 and found["problems"] == []
    with Image.open(found["sheet"]) as sheet:
        assert sheet.format == "PNG" and sheet.width > 48


def test_phantoms_are_called_phantoms(cli):
    assert "procedural phantoms" in cli("data", "inspect", "phantom(count=4, size=32)").stdout


def test_export_reads_back_as_the_same_data(cli, folder_of_discs):
    result = cli("data", "export", folder_of_discs, "--to", "folder", "--output", "copy", "--json")
    assert result.exit_code == 0, result.stderr
    assert json.loads(result.stdout)["cases"] == 12
    one, other = lf.load_dataset(folder_of_discs), lf.load_dataset("folder:copy")
    assert set(one.ids) == set(other.ids)
    rows = {image_id: row for row, image_id in enumerate(other.ids)}
    for row, image_id in enumerate(one.ids):
        assert (one.image(row) == other.image(rows[image_id])).all()
        assert (one.mask(row) == other.mask(rows[image_id])).all()


def test_accepted_cases_of_a_run_are_exported(cli):
    assert cli("run", "blobs | threshold", "-n", 5, "-o", "out", "--no-report", "-q").exit_code == 0
    result = cli("data", "export", "out", "--to", "imagefolder", "-o", "hub")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "5 images in hub\n"
    assert len(list(Path("hub").rglob("case-*.png"))) == 10


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["inspect", "folder:nowhere"], "nowhere"),
        (["inspect", "nothing:x"], "no source is called 'nothing'"),
        (["inspect", "phantom(count=0)"], "data phantom: count = 0"),
        (["inspect", "phantom(count=2)", "--split", "holdout"], "has no split 'holdout'"),
        (["inspect", "phantom(count=2)", "-o", "nowhere/sheet.png"], "cannot write nowhere/sheet.png"),
        (["export", "phantom(count=2)", "--to", "papyrus", "-o", "x"], "no exporter is called 'papyrus'"),
        (["export", "phantom(count=2)", "--to", "folder:x", "-o", "x"], "without a location"),
        (["export", "phantom(count=2)", "--to", "folder(x=1)", "-o", "x"], "unknown key 'x'"),
        (["export", "phantom(count=2)", "--to", "folder", "-o", "full"], "full is there already and not empty"),
    ],
)
def test_bad_input_is_one_line(cli, arguments, told):
    Path("full").mkdir()
    Path("full/mine.txt").write_text("mine")
    result = cli("data", *arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr and len(result.stderr.splitlines()) == 1
    assert sorted(path.name for path in Path().iterdir()) == ["full"]
