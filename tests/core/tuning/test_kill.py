"""A search is killed with SIGKILL at random moments and must end with the trials of an uninterrupted one."""

from __future__ import annotations

import os
import random
import signal
import time

import pytest
import torch

import lesionforge as lf

RECIPE = """
seed = 5
[train.first]
use = "mean"
steps = 4
[synthesis]
count = 6
batch_size = 3
shard_size = 3
precision = "fp32"
[[stage]]
use = "blobs"
[[stage]]
use = "bright"
seconds = 0.02
[[stage]]
use = "brightness"
"""
# TPE takes over from random values after ten trials.
TRIALS = 13
SEARCH = ["bright.level=0.0..0.9", "blobs.size=4..8", "bright.kind=a|b"]
METRIC = 'contrast(weights="train:first")'
# A kill falls a moment after so many trials have begun; before the first one come plan and training.
TARGETS = (-1, -1, -1, 0, 0, 1, 2, 4, 6, 9, 10, 11, 12, 12)


@pytest.fixture
def start(registry, real):
    """Function that searches in a forked child, which leaves with 0 when it has finished."""

    def fork(output):
        child = os.fork()
        if child:
            return child
        code = 1
        try:
            search(output, registry, real)
            code = 0
        finally:
            os._exit(code)

    return fork


def search(output, registry, real):
    options = {"trials": TRIALS, "resume": (output / "tuning.json").exists(), "device": "cpu"}
    return lf.tune(lf.Recipe.from_toml(RECIPE), SEARCH, METRIC, output=output, data=real, registry=registry, **options)


def killed(child, output, target, delay):
    """Kill the child ``delay`` seconds after trial ``target`` has begun; False if it had already ended."""
    while target >= 0 and not (output / "trials" / f"{target:04d}").exists():
        ended, status = os.waitpid(child, os.WNOHANG)
        assert not ended, f"the search ended with {status} before trial {target}"
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def remains(output):
    """Everything that a search leaves but for logs, and the trials in the place of the study's own file."""
    tuning = lf.Tuning(output)
    left = ("log.jsonl", ".lock", ".workers", "study.sqlite3", "tuning.json")
    kept = [file for file in sorted(output.rglob("*")) if file.is_file() and file.name not in left]
    # Trials name the shared trainings by their absolute path, and manifests hash that.
    names = {str(file.relative_to(output)) for file in kept}
    cases = {str(file.relative_to(output)): file.read_bytes() for file in kept if file.suffix in (".png", ".csv")}
    del cases["history.png"]
    trials = [{**trial.as_dict(), "run": trial.run.name} for trial in tuning.trials]
    return names, cases, trials, tuning.places.best.read_text()


def test_killed_at_random_moments_and_resumed_equals_uninterrupted(tmp_path, start, registry, real):
    torch.set_num_threads(1)
    search(tmp_path / "whole", registry, real)
    expected = remains(tmp_path / "whole")
    assert len(expected[2]) == TRIALS and {trial["value"] is None for trial in expected[2]} == {True, False}
    rng, output, kills = random.Random(2), tmp_path / "killed", 0
    for target in TARGETS:
        kills += killed(start(output), output, target, rng.uniform(0, 0.15))
    assert kills > len(TARGETS) // 2
    _, status = os.waitpid(start(output), 0)
    assert os.waitstatus_to_exitcode(status) == 0
    assert remains(output) == expected
    assert all(lf.open_run(trial.run).verify().ok for trial in lf.Tuning(output).trials)
