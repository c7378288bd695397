"""The grid of a study as it fills, on a terminal and in a log."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from lesionforge.cli.bars import LiveDisplay
from lesionforge.cli.grid_progress import DONE, NOW, TO_DO, GridProgress
from lesionforge.cli.progress import LineDisplay

CELLS = [
    (f"key{seed}{arm}", f"unet, {told}, seed {seed}")
    for seed in (0, 1)
    for arm, told in (("a", "50 real"), ("b", "50 real + 50 S"))
]


@pytest.fixture
def folder(tmp_path):
    def finish(name):
        (tmp_path / "cells" / name).mkdir(parents=True)
        (tmp_path / "cells" / name / "metrics.json").write_text("{}")

    return tmp_path, finish


def lines_of(grid):
    return [line.rsplit("  ", 1) for line in grid.plain.splitlines()]


def test_a_log_names_trainings_by_what_they_are(folder):
    root, finish = folder
    target = io.StringIO()
    progress = GridProgress(LineDisplay(Console(file=target, width=200)))
    progress.grid_started(output=root, cells=CELLS)
    progress.job_started(name="key0a", trainer="segmentation", output=root)
    finish("key0a")
    progress.job_done(name="key0a", metrics={"dice": 0.8})
    told = target.getvalue()
    assert "trainings: 0 of 4" in told and "key0a" not in told
    assert "trained unet, 50 real, seed 0 in 0:00: dice 0.8" in told


def test_the_grid_has_a_line_for_each_kind_and_a_sign_for_each_run(folder):
    root, finish = folder
    progress = GridProgress(LineDisplay(Console(file=io.StringIO())))
    progress.grid_started(output=root, cells=CELLS)
    finish("key0a")
    progress.job_started(name="key1b", trainer="segmentation", output=root)
    assert lines_of(progress.grid(9)) == [["unet, 50 real       ", DONE + TO_DO], ["unet, 50 real + 50 S", TO_DO + NOW]]
    assert len(lines_of(progress.grid(1))) == 1


def test_other_jobs_keep_their_names_and_a_terminal_draws_the_grid_above(folder):
    root, _ = folder
    target = io.StringIO()
    console = Console(file=target, force_terminal=True, width=100, height=30)
    with LiveDisplay(console) as display:
        progress = GridProgress(display)
        progress.job_started(name="generator", trainer="ddpm", output=root)
        progress.stage_progress(stage="generator", done=3, total=9, metrics={})
        progress.job_done(name="generator", metrics={})
        progress.grid_started(output=root, cells=CELLS)
        display._bars.refresh()
    told = target.getvalue()
    assert "trained generator" in told and "50 real + 50 S" in told and TO_DO in told
