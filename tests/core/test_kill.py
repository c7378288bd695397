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
PHASES = ("start", "first training", "chain", "second training")
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
    """How far a run has come."""
    if (output / "train/second").exists():
        return "second training"
    if any(output.glob("shards/0*")):
        return "chain"
    return "first training" if (output / "train/first").exists() else "start"


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


def killed(child, output, target, delay):
    """Kill the child ``delay`` seconds after its run has come to ``target``; False if it had already ended."""
    while PHASES.index(phase(output)) < PHASES.index(target):
        ended, status = os.waitpid(child, os.WNOHANG)
        assert not ended, f"the run ended with {status} before {target}"
        time.sleep(0.002)
    time.sleep(delay)
    os.kill(child, signal.SIGKILL)
    return os.WIFSIGNALED(os.waitpid(child, 0)[1])


def test_killed_at_random_moments_and_resumed_equals_uninterrupted(tmp_path, slow_registry, real):
    torch.set_num_threads(1)
    run_here(tmp_path / "whole", real, slow_registry)
    expected = tree(tmp_path / "whole")
    rng = random.Random(1)
    kills = 0
    while kills < KILLS:
        output = tmp_path / f"killed-{kills}"
        for target in PHASES:
            kills += killed(start(output, real, slow_registry), output, target, rng.uniform(0, 0.12))
        _, status = os.waitpid(start(output, real, slow_registry), 0)
        assert os.waitstatus_to_exitcode(status) == 0
        assert tree(output) == expected
        assert lf.open_run(output).verify().complete
