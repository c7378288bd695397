from __future__ import annotations

import io
import os
import pty
import re
from pathlib import Path

import pytest
from rich.console import Console

from lesionforge.cli.bars import LiveDisplay
from lesionforge.cli.output import duration
from lesionforge.cli.progress import JOB, LineDisplay, Progress, pace


class Recorder:
    """A display that notes what it is told."""

    def __init__(self):
        self.rows, self.lines = {}, []

    def show(self, row, title, done, total, note):
        self.rows[row] = (title, done, total, note)

    def drop(self, row):
        self.rows.pop(row, None)

    def leave(self, row, title, seconds, note):
        self.drop(row)
        self.lines.append((title, note))


@pytest.fixture
def recorder():
    return Recorder()


def test_cases_are_counted_with_their_verdicts(recorder):
    progress = Progress(recorder)
    progress.run_started(output=None, count=10, stages=("ddpm", "gate"))
    progress.stage_started(stage="ddpm", cases=4)
    progress.stage_progress(stage="ddpm", done=3, total=50, metrics={})
    assert recorder.rows["stage"] == ("  ddpm", 3, 50, "")
    progress.batch_done(cases=4, kept=3)
    progress.shard_done(first=0, cases=4)
    assert recorder.rows["cases"] == ("cases", 4, 10, "3 kept, 1 rejected")
    progress.run_done(output=None)
    assert recorder.rows == {} and recorder.lines == [("made 4 cases", "3 kept, 1 rejected")]


def test_trials_leave_a_line_each_and_their_cases_none(recorder):
    progress = Progress(recorder)
    progress.trial_started(number=0, trials=3, values={"blobs.size": 8})
    assert recorder.rows["trials"] == ("trials", 0, 3, "blobs.size 8")
    progress.run_started(output=None, count=4, stages=("blobs",))
    progress.batch_done(cases=4, kept=3)
    assert recorder.rows["cases"] == ("  cases", 4, 4, "3 kept, 1 rejected")
    progress.run_done(output=None)
    progress.trial_done(number=0, trials=3, value=0.5, reason=None, best=True)
    progress.trial_started(number=1, trials=3, values={"blobs.size": 9})
    progress.trial_done(number=1, trials=3, value=None, reason="too grey", best=False)
    assert recorder.rows == {"trials": ("trials", 2, 3, "")}
    assert recorder.lines == [
        ("trial 0", "0.5, the best so far; blobs.size 8"),
        ("trial 1", "failed: too grey; blobs.size 9"),
    ]


def test_shards_of_workers_are_counted_from_their_ledgers(recorder, tmp_path):
    progress = Progress(recorder)
    progress.run_started(output=tmp_path, count=4, stages=())
    for first in (0, 2):
        shard = tmp_path / "shards" / f"{first:08d}"
        shard.mkdir(parents=True)
        (shard / "ledger.jsonl").write_text('{"verdict": {"kept": true}}\n{"verdict": {"kept": false}}\n')
        progress.shard_done(first=first, cases=2)
    assert recorder.rows["cases"] == ("cases", 4, 4, "2 kept, 2 rejected")


def test_a_training_shows_its_first_metrics(recorder):
    progress = Progress(recorder)
    progress.job_started(name="net", trainer="segmentation", output=Path("x"))
    metrics = {"loss": 0.123456, "rate": 1e-4, "val_dice": 0.5, "further": 1.0}
    progress.stage_progress(stage="net", done=5, total=20, metrics=metrics)
    assert recorder.rows == {JOB: ("net", 5, 20, "loss 0.1235, rate 0.0001, val_dice 0.5")}
    progress.job_done(name="net", metrics={"dice": 0.75})
    assert recorder.rows == {} and recorder.lines == [("trained net", "dice 0.75")]


def test_a_log_gets_a_line_now_and_then():
    log = io.StringIO()
    progress = Progress(LineDisplay(Console(file=log, width=80)))
    progress.run_started(output=None, count=1000, stages=("a",))
    for _ in range(500):
        progress.stage_started(stage="a", cases=2)
        progress.batch_done(cases=2, kept=1)
    progress.run_done(output=None)
    assert log.getvalue() == "cases: 0 of 1,000\nmade 1,000 cases in 0:00: 500 kept, 500 rejected\n"


def test_a_log_line_tells_the_pace():
    log = io.StringIO()
    display = LineDisplay(Console(file=log, width=200), every=0)
    for done in (100, 150, 200):
        display.show(JOB, "net", done, 200, "loss 1")
    lines = log.getvalue().splitlines()
    assert lines[0] == "net: 100 of 200, loss 1" and lines[2] == "net: 200 of 200, loss 1"
    assert re.fullmatch(r"net: 150 of 200, [\d.,]+/s, 0:00 left, loss 1", lines[1])


def test_a_log_counts_each_phase_of_a_training_from_its_own_beginning(monkeypatch):
    log, clock = io.StringIO(), iter([0.0, 100.0, 100.0, 102.0])
    monkeypatch.setattr("lesionforge.cli.progress.time.monotonic", lambda: next(clock))
    display = LineDisplay(Console(file=log, width=200), every=1)
    for done, total in ((10, 50), (50, 50), (0, 1000), (20, 1000)):
        display.show(JOB, "net", done, total, "")
    lines = log.getvalue().splitlines()
    assert lines[1:] == ["net: 50 of 50", "net: 0 of 1,000", "net: 20 of 1,000, 10.0/s, 1:38 left"]


def test_bars_come_and_go_and_leave_a_line():
    screen = io.StringIO()
    console = Console(file=screen, width=100, force_terminal=True, color_system=None)
    with LiveDisplay(console) as display:
        display.show(JOB, "net [bold]", 0, None, "training")
        display.show(JOB, "net [bold]", 500, 1000, "loss [red]1")
        display.show("stage", "  inner", 1, 4, "")
        display.show("stage", "  other", 0, None, "")
        display._bars.refresh()
        display.drop("stage")
        display.leave(JOB, "trained net\n", 65.0, "dice 0.5")
    text = screen.getvalue()
    assert "500/1,000" in text and "loss [red]1" in text and "net [bold]" in text
    assert "trained net\\n" in text and "1:05" in text


@pytest.mark.parametrize(
    ("seconds", "shown"), [(0.2, "0:00"), (59.7, "1:00"), (65, "1:05"), (3600, "1:00:00"), (90061, "25:01:01")]
)
def test_durations(seconds, shown):
    assert duration(seconds) == shown


@pytest.mark.parametrize(("rate", "shown"), [(0.25, "4.0 s each"), (1, "1.0/s"), (12.34, "12.3/s"), (1234, "1,234/s")])
def test_pace(rate, shown):
    assert pace(rate) == shown


def test_on_a_terminal_there_are_bars_and_results_stay_apart(process):
    master, slave = pty.openpty()
    running = process("run", "blobs", "-n", 6, "--no-report", "--json", stderr=slave)
    out, _ = running.communicate(timeout=60)
    os.close(slave)
    drawn = b""
    while b"made 6 cases" not in drawn:
        drawn += os.read(master, 65536)
    os.close(master)
    assert running.returncode == 0
    assert out.startswith("{") and '"cases": 6' in out
    assert "━" in drawn.decode() and "6 kept, 0 rejected" in drawn.decode()


def test_what_a_plugin_prints_does_not_disturb_the_results(cli, on_path, tmp_path):
    folder = tmp_path / "chatty"
    info = folder / "chatty-1.0.dist-info"
    info.mkdir(parents=True)
    (folder / "chatty_toys.py").write_text(
        "import lesionforge as lf\n\n"
        'class Chatty(lf.Annotator):\n    """Prints."""\n\n    name = "chatty"\n\n'
        '    def annotate(self, batch):\n        print("hello from a plugin")\n        return batch\n\n'
        "@lf.hookimpl\ndef register_plugins():\n    return [Chatty]\n"
    )
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: chatty\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lesionforge]\nchatty_toys = chatty_toys\n")
    on_path(folder)
    result = cli("run", "blobs | chatty", "-n", 2, "--json", "--no-report")
    assert result.stdout.startswith("{") and "hello from a plugin" in result.stderr
