from __future__ import annotations

import json
from pathlib import Path

import pytest

import lesionforge as lf


@pytest.fixture
def finished(cli):
    assert cli("run", "blobs | threshold", "-n", 6, "--shard-size", 3, "-o", "out", "--no-report", "-q").exit_code == 0
    return lf.open_run("out")


def test_a_whole_run_verifies(cli, finished):
    result = cli("verify", "out")
    assert result.exit_code == 0 and "6 of 6, complete" in result.stdout
    assert json.loads(cli("verify", "out", "--json").stdout) == {
        "cases": 6,
        "expected": 6,
        "problems": [],
        "notes": [],
        "complete": True,
        "ok": True,
    }


def test_a_changed_a_missing_and_a_strange_file_are_named(cli, finished):
    cases = list(finished.cases())
    cases[0].files["image"].write_bytes(b"changed")
    cases[1].files["mask"].unlink()
    Path("out/shards/00000003/images/stranger.png").write_bytes(b"")
    result = cli("verify", "out")
    assert result.exit_code == 2
    for told in ("case-00000000: image", "has changed", "case-00000001: mask", "is missing", "stranger.png is in no"):
        assert told in result.stdout
    found = json.loads(cli("verify", "out", "--json").stdout)
    assert len(found["problems"]) == 3 and not found["ok"]


def test_what_is_still_to_make_is_no_problem(cli, finished):
    import shutil

    shutil.rmtree("out/shards/00000003")
    result = cli("verify", "out")
    assert result.exit_code == 0 and "3 of 6, 3 still to make" in result.stdout


def test_a_case_is_made_again(cli, finished):
    result = cli("regenerate", "out", "case-00000004", "--output", "again")
    assert result.exit_code == 0, result.output
    assert "case-00000004: identical" in result.stdout
    case = finished.case("case-00000004")
    for column in ("image", "mask", "soft_mask"):
        assert Path("again", f"{column}.png").read_bytes() == case.files[column].read_bytes()


def test_a_case_that_comes_out_otherwise_is_reported(cli, finished):
    ledger = Path("out/shards/00000000/ledger.jsonl")
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    rows[1]["sha256"]["image"] = "0" * 64
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))
    result = cli("regenerate", "out", "case-00000001", "--json")
    assert result.exit_code == 2
    assert json.loads(result.stdout) == {"case": "case-00000001", "identical": False, "written": []}


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["verify", "nowhere"], "nowhere is no run folder"),
        (["regenerate", "nowhere", "case-00000000"], "nowhere is no run folder"),
        (["regenerate", "out", "case-9"], "has no case 'case-9'"),
        (["regenerate", "out", "case-00000000", "-o", "out"], "out is there already and not empty"),
        (["report", "nowhere"], "nowhere is no run folder"),
    ],
)
def test_bad_input_is_one_line(cli, finished, arguments, told):
    result = cli(*arguments)
    assert result.exit_code == 2, result.output
    assert told in result.stderr and len(result.stderr.splitlines()) == 1


def test_the_report_is_written_again(cli, finished):
    result = cli("report", "out")
    assert result.exit_code == 0, result.stderr
    assert result.stdout == "out/report/index.html\n"
    assert Path("out/report/index.html").stat().st_size > 1000
    assert json.loads(cli("report", "out", "--json").stdout) == {"report": "out/report/index.html"}


def test_a_report_without_its_real_data_says_so(cli, folder_of_discs, tmp_path):
    import shutil

    assert cli("run", "blobs", "-n", 3, "-o", "real", "-d", folder_of_discs, "--no-report", "-q").exit_code == 0
    shutil.rmtree(tmp_path / "discs")
    result = cli("report", "real")
    assert result.exit_code == 0
    assert result.stderr.startswith("note: the report shows no real images: ")
    assert cli("report", "real", "--data", folder_of_discs).exit_code == 2
