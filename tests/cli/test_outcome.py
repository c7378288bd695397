from __future__ import annotations

import json
import os
import signal
import time

import pytest

import lesionforge as lf
from lesionforge.cli import run as run_verb
from lesionforge.cli.output import number, printable


def test_the_version_is_the_package_s(cli):
    assert cli("--version").stdout == f"lesionforge {lf.__version__}\n"


def test_no_verb_shows_the_help(cli):
    result = cli()
    assert "Usage: lesionforge" in result.output and "regenerate" in result.output


def test_a_bug_of_ours_is_one_line(cli, monkeypatch):
    def broken(*_):
        raise KeyError("nobody thought of this")

    monkeypatch.setattr(run_verb, "read_recipe", broken)
    result = cli("run", "blobs", "--json")
    assert result.exit_code == 1
    assert result.stderr.startswith("error: internal error, please report it: KeyError: 'nobody thought of this'")
    assert len(result.stderr.splitlines()) == 1
    assert json.loads(result.stdout)["error"]["kind"] == "KeyError"
    monkeypatch.setenv("LESIONFORGE_DEBUG", "1")
    assert "Traceback (most recent call last)" in cli("run", "blobs").stderr


def test_a_file_that_may_not_be_read_is_no_bug(cli, monkeypatch):
    def broken(*_):
        raise PermissionError(13, "Permission denied", "secret/place")

    monkeypatch.setattr(run_verb, "read_recipe", broken)
    result = cli("run", "blobs")
    assert (result.exit_code, result.stderr) == (2, "error: secret/place: Permission denied\n")


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("plain grün 皮膚 'x'", "plain grün 皮膚 'x'"),
        ("line\nbreak\rand\ttab", "line\\nbreak\\rand\\ttab"),
        ("\x1b[31mred\x1b[0m \x07", "\\x1b[31mred\\x1b[0m \\x07"),
        ("right-to-left \u202e override", "right-to-left \\u202e override"),
        (os.fsdecode(b"not \xff text"), "not \\udcff text"),
    ],
)
def test_what_could_disturb_a_terminal_is_spelled_out(text, shown):
    assert printable(text) == shown


@pytest.mark.parametrize(
    ("value", "shown"),
    [
        (0.123456, "0.1235"),
        (486_600.0, "486,600"),
        (0.0, "0"),
        (1e-5, "1e-05"),
        (12, "12"),
        (float("nan"), "nan"),
        ("x", "x"),
    ],
)
def test_numbers_have_four_digits(value, shown):
    assert number(value) == shown


def test_hostile_names_stay_on_one_line(cli, tmp_path):
    name = "evil\x1b[31m\n[bold red]recipe.toml"
    (tmp_path / name).write_text("nonsense = [")
    result = cli("run", name)
    assert result.exit_code == 2
    assert "\x1b" not in result.stderr and len(result.stderr.splitlines()) == 1
    assert "evil\\x1b[31m\\n[bold red]recipe.toml" in result.stderr


def test_markup_in_user_text_is_not_interpreted(cli):
    plan = cli("run", "blobs(label='[/red] :smile:')", "--dry-run")
    assert plan.exit_code == 0 and 'label="[/red] :smile:"' in plan.stdout


def test_a_reader_that_goes_away_is_no_error(process):
    running = process("plugins", "list")
    running.stdout.close()
    assert running.wait(60) == 141
    assert running.stderr.read() == ""


def test_an_interrupted_run_says_how_to_go_on(process, tmp_path):
    marker = tmp_path / "running"
    chain = f'blobs(size=64) | threshold | slow(marker="{marker}")'
    running = process("run", chain, "-n", 60, "--batch-size", 4, "--shard-size", 4, "-o", "out", "--no-report")
    for _ in range(600):
        if list((tmp_path / "out" / "shards").glob("[0-9]*")):
            break
        time.sleep(0.1)
    running.send_signal(signal.SIGINT)
    out, err = running.communicate(timeout=60)
    assert running.returncode == 130, err
    assert out == ""
    assert err.splitlines()[-1] == ("interrupted: stopped before the end; go on with: lesionforge run out --resume")
    assert "Traceback" not in err
    marker.touch()
    resumed, err = process("run", "out", "--resume", "--json", "--no-report").communicate(timeout=60)
    assert json.loads(resumed).get("cases") == 60, err
    assert lf.open_run(tmp_path / "out").verify().ok
