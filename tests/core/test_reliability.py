"""What must not be stored, lost or hidden."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from dataclasses import replace

import numpy as np
import pytest
import torch

import lesionforge as lf
from lesionforge.core.chain import Chain
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, PluginError, PluginFailure, StoreError
from lesionforge.core.recipe import Recipe, Synthesis
from lesionforge.core.runner import prepare_run
from lesionforge.core.shards import make_shards
from lesionforge.core.training import TrainingLoop, Validation
from lesionforge.testing import disc_dataset


def tree(folder):
    names = (path for path in sorted(folder.rglob("*")) if path.is_file() and path.name not in ("log.jsonl", ".lock"))
    return {str(path.relative_to(folder)): path.read_bytes() for path in names if path.name != ".workers"}


@pytest.fixture
def run_with(toys, tmp_path):
    """Run the toy chain with one more stage, given as a class."""

    def run(plugin, chain="blobs(size=8) | threshold", **settings):
        registry = toys.toy_registry(toys.entry_point("more", lambda: toys.module([plugin])))
        chain = Chain.parse(f"{chain} | {plugin.name}")
        options = {"count": 4, "batch_size": 4, "output": tmp_path / "run", "registry": registry, "report": False}
        return chain.run(**{**options, **settings})

    return run


def annotator(label, annotate):
    kind = {"__doc__": "Does something odd.", "name": label, "annotate": lambda self, batch: annotate(batch)}
    return type("Odd", (lf.Annotator,), kind)


@pytest.mark.parametrize(
    ("annotate", "said"),
    [
        (lambda b: b.with_columns(masks=b.masks * float("nan")), "filled masks with values from nan"),
        (lambda b: b.with_columns(soft_masks=b.soft_masks * 7 + 1), "filled soft_masks with values from 1"),
        (lambda b: b.with_columns(masks=b.masks * 0.5), "filled masks with values between 0 and 1"),
        (lambda b: b.with_columns(masks=torch.zeros(4, 1, 5, 5)), r"left masks of \(5, 5\) beside images of \(8, 8\)"),
        (lambda b: b.with_columns(provenance=[{"x": np.float32(1)}] * 4), "provenance that JSON cannot hold"),
        (lambda b: b.with_columns(provenance=[{"x": float("nan")}] * 4), "provenance that JSON cannot hold"),
        (lambda b: b.with_columns(prompts=["\ud800"] * 4), "provenance that JSON cannot hold"),
    ],
)
def test_what_cannot_be_stored_as_it_is_stops_the_run(run_with, tmp_path, annotate, said):
    with pytest.raises(PluginFailure, match=f"stage odd .*{said}"):
        run_with(annotator("odd", annotate))
    assert not list((tmp_path / "run/shards").iterdir())


def test_no_stage_may_take_back_a_rejection(run_with, toys):
    class Amnesty(lf.Filter):
        """Forgives everything."""

        name = "amnesty"

        def screen(self, batch):
            return replace(
                batch, rejections=(None,) * len(batch), scores=batch.scores
            )

    with pytest.raises(PluginError, match="stage amnesty changed rejections; only a filter may, and only by adding"):
        run_with(Amnesty, chain="blobs(size=8) | brightness(percentile=100)", data=disc_dataset(12, 8))


@pytest.mark.parametrize("prompt", ["line\u2028separator", "next\u0085line", "tab\tand\nnewline", "ü 😀"])
def test_any_text_survives_the_ledger(run_with, prompt):
    run = run_with(annotator("talker", lambda batch: batch.with_columns(prompts=[prompt] * len(batch))))
    assert [case.prompt for case in run.cases()] == [prompt] * 4 and run.verify().ok


def test_an_observer_that_raises_is_named(toys, tmp_path):
    class Clumsy:
        @lf.hookimpl
        def batch_done(self, cases, kept):
            raise ValueError("dropped it")

    with pytest.raises(PluginFailure, match="an observer failed in batch_done: ValueError: dropped it"):
        Chain.parse("blobs").run(
            count=4, output=tmp_path / "run", registry=toys.toy_registry(), observers=[Clumsy()], report=False
        )


def test_a_stage_that_cannot_start_stops_the_run_before_any_training(toys, tmp_path):
    class Unready(lf.Filter):
        """Misses its weights."""

        name = "unready"

        def setup(self, context):
            raise CheckpointError("weights are missing; get them")

        def screen(self, batch):
            return batch

    registry = toys.toy_registry(toys.entry_point("more", lambda: toys.module([Unready])))
    text = "[train.first]\nuse = 'mean'\n[[stage]]\nuse = 'blobs'\n[[stage]]\nuse = 'unready'\n"
    data = disc_dataset(12, 8)
    with pytest.raises(CheckpointError, match="weights are missing"):
        Recipe.from_toml(text).run(output=tmp_path / "run", data=data, registry=registry)
    assert not (tmp_path / "run/train").exists()


def test_a_prepared_run_is_made_by_independent_workers(tmp_path):
    settings = Synthesis(Chain.parse("phantom(size=32)"), count=20, batch_size=4, shard_size=8, precision="fp32")
    recipe = Recipe(synthesis=settings)
    whole = recipe.run(output=tmp_path / "whole", device="cpu", report=False)
    with pytest.raises(StoreError, match="is not prepared"):
        (tmp_path / "parts").mkdir()
        (tmp_path / "parts/recipe.toml").write_text(whole.store.recipe.read_text())
        make_shards(tmp_path / "parts", worker=0, workers=2)
    (tmp_path / "parts/recipe.toml").unlink()
    prepare_run(recipe, output=tmp_path / "parts", device="cpu")
    made = [make_shards(tmp_path / "parts", worker=number, workers=2, device="cpu") for number in (1, 0)]
    assert made == [1, 2] and tree(tmp_path / "parts") == tree(tmp_path / "whole")


def test_workers_die_with_their_parent_and_the_run_resumes(tmp_path):
    command = "import sys; from lesionforge.cli.main import main; sys.exit(main())"
    sizes = ["-n", "160", "--batch-size", "4", "--shard-size", "4", "--workers", "2"]
    output = ["--no-report", "-o", str(tmp_path / "run")]
    arguments = [sys.executable, "-c", command, "run", "phantom(size=64)", *sizes, *output]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1"}
    parent = subprocess.Popen(arguments, env=environment, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while not list(tmp_path.glob("run/shards/0*")):
        assert parent.poll() is None
        time.sleep(0.02)
    parent.send_signal(signal.SIGKILL)
    parent.wait()
    resumed = subprocess.run([*arguments, "--resume"], env=environment, capture_output=True, text=True, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    assert lf.open_run(tmp_path / "run").verify().complete
    alone = Chain.parse("phantom(size=64)").run(
        count=8, batch_size=4, shard_size=4, output=tmp_path / "alone", device="cpu", report=False
    )
    stored = {case.id: dict(case.sha256) for case in lf.open_run(tmp_path / "run").cases()}
    assert all(stored[case.id] == dict(case.sha256) for case in alone.cases()) and len(stored) == 160


def loop_in(folder, steps=6):
    model = torch.nn.Conv2d(1, 1, 1)
    context = Context(torch.device("cpu"), "fp32", "job")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    return TrainingLoop(
        model=model, optimizer=optimizer, output=folder, context=context, steps=steps, batch_size=2, examples=4
    )


def test_a_diverged_training_stops_and_publishes_nothing(tmp_path):
    loop = loop_in(tmp_path)

    def losses(rows, step):
        return {"loss": loop.network(torch.ones(2, 1, 4, 4)).mean() * (float("nan") if step == 3 else 1)}

    with pytest.raises(PluginFailure, match="training job diverged before step 4: its loss is not finite"):
        loop.run(losses)


def test_a_validation_that_is_not_a_number_is_never_the_best(tmp_path):
    loop, values = loop_in(tmp_path), iter([float("nan"), np.float64(0.5), 0.2])
    kept = []

    def evaluate(model):
        kept.append({name: value.clone() for name, value in model.state_dict().items()})
        return {"v": next(values)}

    loop.run(
        lambda rows, step: {"loss": loop.network(torch.ones(2, 1, 4, 4)).mean()},
        validation=Validation(2, evaluate, "v", True),
    )
    assert torch.equal(loop.model.weight, kept[1]["weight"])
    again = loop_in(tmp_path)
    again.run(lambda rows, step: {}, validation=None)
    assert torch.equal(again.model.weight, kept[1]["weight"])


def test_curves_are_whole_after_a_kill_behind_the_last_checkpoint(tmp_path):
    loop = loop_in(tmp_path)
    loop.run(lambda rows, step: {"loss": loop.network(torch.ones(2, 1, 4, 4)).mean()})
    whole = (tmp_path / "curves.csv").read_bytes()
    (tmp_path / "curves.csv").unlink()
    loop_in(tmp_path).run(lambda rows, step: {})
    assert (tmp_path / "curves.csv").read_bytes() == whole


def test_a_finished_job_is_not_taken_over_to_other_data(toys, tmp_path):
    recipe = Recipe.from_toml("[train.first]\nuse = 'mean'\n")
    data, registry = disc_dataset(12, 8), toys.toy_registry()
    recipe.run(output=tmp_path / "run", data=data, registry=registry, report=False)
    recipe.run(output=tmp_path / "run", data=data, registry=registry, report=False, resume=True)
    with pytest.raises(StoreError, match="training first was finished on other data than there are now"):
        other = replace(data, records=data.records[:-3])
        recipe.run(output=tmp_path / "run", data=other, registry=registry, report=False, resume=True)
    facts = json.loads((tmp_path / "run/train/first/job.json").read_text())
    assert facts["precision"] in ("fp32", "bf16") and "kernels" in facts["machine"]
