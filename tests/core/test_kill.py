"""Runs are killed with SIGKILL at random moments and must end with the bytes of an uninterrupted run."""

from __future__ import annotations

import os
import random
import signal
import time
from dataclasses import replace

import pytest
import torch

import lesionforge as lf
from lesionforge.core.recipe import Recipe
from lesionforge.testing import disc_dataset

KILLS = 24
RECIPE = """
seed = 5
[train.first]
use = "mean"
steps = 20
[synthesis]
count = 40
batch_size = 3
shard_size = 4
precision = "fp32"
[[stage]]
use = "slow-blobs"
size = 16
[[stage]]
use = "threshold"
[[stage]]
use = "brightness"
[train.second]
use = "mean"
on = ["real", "synthetic"]
start = "train:first"
steps = 20
"""


@pytest.fixture
def slow_registry(toys):
    class SlowBlobs(toys.Blobs):
        """Draws grey images, taking its time."""

        name = "slow-blobs"

        def generate(self, batch):
            time.sleep(0.02)
            return super().generate(batch)

    class SlowMean(toys.Mean):
        """Learns the mean image, taking its time."""

        def train(self, train, val, output):
            report = self.context.progress

            def slowly(done, total, metrics):
                time.sleep(0.005)
                report(done, total, metrics)

            self.context = replace(self.context, progress=slowly)
            super().train(train, val, output)

    plugins = [SlowBlobs, toys.Threshold, toys.Brightness, SlowMean]
    return toys.Registry([toys.entry_point("slow", lambda: toys.module(plugins))])


@pytest.fixture
def real():
    discs = disc_dataset(24, 16)
    splits = ("train", "train", "val", "test")
    return replace(discs, records=tuple(replace(r, split=splits[n % 4]) for n, r in enumerate(discs.records)))


def tree(folder):
    names = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("log.jsonl", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in names}


def phase(output):
    """How far a run has come: its first training, the chain, or its second training."""
    if (output / "train/second").exists():
        return "second"
    return "chain" if any(output.glob("shards/0*")) else "first"


def run_here(output, real, registry):
    resume = (output / "recipe.toml").exists()
    Recipe.from_toml(RECIPE).run(output=output, data=real, registry=registry, resume=resume, device="cpu", report=False)


def start(output, real, registry):
    """Run the recipe in a forked child, which leaves with 0 when it has finished."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        run_here(output, real, registry)
        code = 0
    finally:
        os._exit(code)


def killed_after(child, seconds):
    """Kill the child after ``seconds`` unless it has ended; return its exit code, or None if it was killed."""
    deadline = time.monotonic() + seconds
    while time.monotonic() < deadline:
        done, status = os.waitpid(child, os.WNOHANG)
        if done:
            return os.waitstatus_to_exitcode(status)
        time.sleep(0.002)
    os.kill(child, signal.SIGKILL)
    os.waitpid(child, 0)
    return None


def test_killed_at_random_moments_and_resumed_equals_uninterrupted(tmp_path, slow_registry, real):
    torch.set_num_threads(1)
    run_here(tmp_path / "whole", real, slow_registry)
    expected = tree(tmp_path / "whole")
    started = time.monotonic()
    assert killed_after(start(tmp_path / "forked", real, slow_registry), 60) == 0
    duration = time.monotonic() - started
    assert tree(tmp_path / "forked") == expected
    rng = random.Random(1)
    kills, attempt, phases_hit = 0, 0, set()
    while kills < KILLS:
        output = tmp_path / f"run-{attempt}"
        attempt += 1
        code = None
        while code is None and kills < KILLS:
            code = killed_after(start(output, real, slow_registry), duration * rng.uniform(0.1, 0.8))
            if code is None:
                kills += 1
                phases_hit.add(phase(output))
        while code is None:
            code = killed_after(start(output, real, slow_registry), 60)
        assert code == 0
        assert tree(output) == expected
        assert lf.open_run(output).verify().complete
    assert phases_hit == {"first", "chain", "second"}
