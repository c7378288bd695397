from __future__ import annotations

import json
from pathlib import Path

import pytest

import lesionforge as lf

RECIPE = """
name = "small"
seed = 3

[synthesis]
count = 10
batch_size = 4
shard_size = 4

[[stage]]
use = "blobs"
label = "melanoma"

[[stage]]
use = "threshold"
"""


@pytest.fixture
def recipe(tmp_path):
    file = tmp_path / "small.toml"
    file.write_text(RECIPE)
    return file


def line_of_error(result, code=2):
    assert result.exit_code == code, result.output
    lines = result.stderr.splitlines()
    assert len(lines) == 1 and lines[0].startswith("error: "), result.stderr
    return lines[0]


def test_a_chain_becomes_a_run(cli):
    result = cli("run", "blobs(size=8) | threshold", "--count", 5, "--no-report", "--output", "out")
    assert result.exit_code == 0, result.stderr
    run = lf.open_run("out")
    assert str(run.recipe.synthesis.chain) == 'blobs(size=8, label="nevus") | threshold(level=0.5)'
    assert [case.id for case in run.cases()] == [f"case-{index:08d}" for index in range(5)]
    assert "cases" in result.stdout and "out" in result.stdout


def test_a_recipe_file_says_what_the_options_do_not(cli, recipe):
    assert cli("run", recipe, "--seed", 7, "--no-report", "-q").exit_code == 0
    made = lf.open_run("runs/small").recipe
    assert (made.seed, made.synthesis.count, made.synthesis.shard_size) == (7, 10, 4)


def test_set_outranks_options_and_the_last_set_wins(cli, recipe):
    settings = ["synthesis.count=3", "synthesis.count=2", "blobs.label=a bare word", "threshold.level = 0.25"]
    given = [word for setting in settings for word in ("--set", setting)]
    plan = json.loads(cli("run", recipe, "--count", 9, *given, "--dry-run", "--json").stdout)
    assert plan["cases"] == 2
    assert plan["stages"][0]["config"]["label"] == "a bare word"
    assert plan["stages"][1]["config"]["level"] == 0.25


def test_json_holds_the_summary_and_nothing_else(cli, recipe):
    result = cli("run", recipe, "--json")
    assert result.exit_code == 0, result.stderr
    found = json.loads(result.stdout)
    assert found["cases"] == found["expected"] == 10
    assert found["kept"] + sum(found["rejected"].values()) == 10
    assert Path(found["report"]).is_file()


def test_without_a_report_there_is_none(cli, recipe):
    assert json.loads(cli("run", recipe, "--json", "--no-report").stdout)["report"] is None
    assert not Path("runs/small/report").exists()


def test_quiet_says_nothing(cli, recipe):
    result = cli("run", recipe, "--quiet", "--no-report")
    assert (result.exit_code, result.output) == (0, "")


def test_the_summary_counts_rejections_by_their_reason(cli, folder_of_discs):
    result = cli("run", "blobs(size=16) | brightness(percentile=100)", "-n", 20, "-d", folder_of_discs, "--no-report")
    assert result.exit_code == 0, result.stderr
    made = lf.open_run("runs/blobs-brightness").summary()
    assert made["rejected"]["brightness: brightness"] > 0
    told = {" ".join(words[:-2]): words[-2] for line in result.stdout.splitlines() if len(words := line.split()) > 2}
    assert told["kept"] == str(made["kept"]) and told["rejected"] == str(20 - made["kept"])
    assert told["brightness: brightness"] == str(made["rejected"]["brightness: brightness"])


def test_a_dry_run_tells_everything_and_creates_nothing(cli, recipe, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    result = cli("run", recipe, "--dry-run")
    assert result.exit_code == 0, result.stderr
    assert sorted(tmp_path.rglob("*")) == before
    for told in ("runs/small", 'label="melanoma"', "level=0.5", "10 in batches of 4", "3 of up to 4 cases"):
        assert told in result.stdout


def test_a_dry_run_sees_what_is_there(cli, recipe):
    cli("run", recipe, "--no-report", "-q", "--count", 10)
    plan = json.loads(cli("run", recipe, "--dry-run", "--json", "--resume").stdout)
    assert plan["shards"] == {"all": 3, "committed": 3} and plan["exists"] and plan["obstacle"] is None
    blocked = cli("run", recipe, "--dry-run", "--json")
    assert blocked.exit_code == 2 and "--resume" in json.loads(blocked.stdout)["obstacle"]
    other = cli("run", recipe, "--dry-run", "--resume", "--seed", 8)
    assert "another recipe" in line_of_error(other)


def test_a_dry_run_reads_the_tables_of_the_data(cli, folder_of_discs):
    plan = json.loads(cli("run", "blobs", "--data", folder_of_discs, "--dry-run", "--json").stdout)
    assert plan["data"]["cases"] == sum(plan["data"]["splits"].values()) == 12
    assert plan["data"]["phantom"] is False


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["nothing-of-that-name"], "neither a recipe file nor a built-in recipe"),
        (["blobs | nothing"], "no generator or annotator or filter is called 'nothing'"),
        (["blobs(sise=8)"], "stage blobs: unknown key 'sise'; allowed are size, label"),
        (["blobs(size=1)"], "size = 1: input should be greater than or equal to 2"),
        (["blobs(size=eight)"], "'eight' is no value"),
        (["blobs | "], "expected a plugin's name"),
        (["missing.toml"], "there is no recipe missing.toml"),
        (["blobs", "--set", "blobs.size=1"], "input should be greater than or equal to 2"),
        (["blobs", "--set", "blobs.size"], "expected PATH=VALUE"),
        (["blobs", "--set", "blobs.label=[1"], "'[1' is no value"),
        (["blobs", "--set", "other.size=1"], "there is nothing called 'other'; there are data, synthesis, blobs"),
        (["blobs", "--count", "0"], "--count: count = 0: input should be greater than or equal to 1"),
        (["blobs", "--precision", "fp8"], "--precision: precision = 'fp8'"),
        (["blobs", "--seed", "-1"], "--seed: seed = -1"),
        (["blobs", "--device", "toaster"], "device 'toaster' cannot be used"),
        (["blobs | brightness"], "stage brightness must be fitted on real data"),
        (["blobs | brightness", "--dry-run"], "stage brightness must be fitted on real data"),
        (["blobs", "--data", "folder:nowhere"], "nowhere"),
        (["blobs", "--data", "nothing:nowhere"], "no source is called 'nothing'"),
        (["blobs", "--data", "not a spec"], "data are named as SOURCE:PATH"),
    ],
)
def test_bad_input_is_one_line(cli, arguments, told, tmp_path):
    before = sorted(tmp_path.rglob("*"))
    assert told in line_of_error(cli("run", *arguments))
    assert sorted(tmp_path.rglob("*")) == before


def test_an_option_that_does_not_exist_is_a_usage_error(cli):
    result = cli("run", "blobs", "--nonsense")
    assert result.exit_code == 2 and "--nonsense" in result.stderr


def test_json_holds_the_error_too(cli):
    result = cli("run", "blobs(size=1)", "--json")
    error = json.loads(result.stdout)["error"]
    assert (result.exit_code, error["kind"], error["exit_code"]) == (2, "ConfigError", 2)
    assert result.stderr == f"error: {error['message']}\n"


def test_an_output_in_use_is_left_alone(cli, recipe, tmp_path):
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "thesis.txt").write_text("mine")
    assert "not empty" in line_of_error(cli("run", recipe, "-o", "mine"))
    cli("run", recipe, "--no-report", "-q")
    assert "add --resume" in line_of_error(cli("run", recipe, "--no-report", "-q"))
    again = cli("run", recipe, "--no-report", "-q", "--resume")
    assert again.exit_code == 0


def test_an_output_that_cannot_be_written(cli, recipe, tmp_path):
    (tmp_path / "file").write_text("")
    for arguments in (["-o", "file"], ["-o", "file/below"]):
        assert "file" in line_of_error(cli("run", recipe, *arguments))


def test_a_run_folder_goes_on_with_its_own_recipe_alone(cli, recipe):
    cli("run", recipe, "--no-report", "-q", "-o", "out")
    assert "add --resume" in line_of_error(cli("run", "out"))
    refused = line_of_error(cli("run", "out", "--resume", "--count", 4, "--set", "blobs.size=4", "-o", "elsewhere"))
    assert "leave out --count, --set, --output" in refused
    assert cli("run", "out", "--resume", "--no-report", "-q").exit_code == 0


def test_a_plugin_that_raises_leaves_a_run_that_can_go_on(cli, tmp_path):
    chain = f'blobs | explodes(at=6, marker="{tmp_path}/calm")'
    arguments = ["-n", 10, "--batch-size", 4, "--shard-size", 4, "-o", "a folder", "--no-report"]
    result = cli("run", chain, *arguments)
    assert result.exit_code == 1
    line = result.stderr.splitlines()[-1]
    assert line.startswith("error: stage explodes failed on case-00000004 to case-00000007: ZeroDivisionError: boom; ")
    assert "second line" not in result.output and "Traceback" not in result.output
    assert line.endswith("lesionforge run 'a folder' --resume")
    assert lf.open_run("a folder").verify().cases == 4
    (tmp_path / "calm").touch()
    assert cli("run", "a folder", "--resume", "--no-report", "-q").exit_code == 0
    assert cli("run", chain, *arguments[:-3], "-o", "whole", "--no-report", "-q").exit_code == 0
    resumed, whole = (
        {file.relative_to(root): file.read_bytes() for file in Path(root, "shards").rglob("*") if file.is_file()}
        for root in ("a folder", "whole")
    )
    assert resumed == whole and len(whole) == 16


def test_debug_shows_the_traceback_of_a_plugin(cli):
    result = cli("--debug", "run", "blobs | explodes", "-o", "out")
    assert result.exit_code == 1 and "ZeroDivisionError" in result.stderr and "Traceback" in result.stderr


def test_workers_share_the_shards(process):
    options = ["-n", 12, "--batch-size", 4, "--shard-size", 4, "--no-report", "--json"]
    running = process("run", "blobs | threshold", *options, "--workers", 2, "-o", "two")
    out, err = running.communicate(timeout=120)
    assert running.returncode == 0, err
    assert json.loads(out)["cases"] == 12
    assert "made 12 cases" in err and "12 kept, 0 rejected" in err
