"""Metrics of a recipe: on which images, when again, and that a refusal breaks nothing."""

from __future__ import annotations

import json
from dataclasses import replace

import pytest

import lesionforge as lf
from lesionforge.core.errors import ConfigError, DataError, PluginFailure, StoreError
from lesionforge.core.recipe import Recipe
from lesionforge.core.run import Run
from lesionforge.testing import disc_dataset

RECIPE = """
seed = 3
[train.first]
use = "mean"
[train.both]
use = "mean"
on = ["real", "synthetic"]
[synthesis]
count = 12
batch_size = 4
shard_size = 4
[[stage]]
use = "blobs"
size = 16
[[stage]]
use = "threshold"
[[stage]]
use = "brightness"
"""
GAP = '[[metric]]\nuse = "gap"\nweights = "train:first"\n'


@pytest.fixture(scope="module")
def real():
    discs = disc_dataset(24, 16)
    splits = ("train", "train", "val", "test")
    return replace(discs, records=tuple(replace(r, split=splits[n % 4]) for n, r in enumerate(discs.records)))


@pytest.fixture
def measured(toys, monkeypatch):
    """The ids of both datasets of each measurement of the toy metric."""
    seen, measure = [], toys.Gap.measure

    def noted(self, comparison):
        seen.append((comparison.first.ids, comparison.second.ids))
        return measure(self, comparison)

    monkeypatch.setattr(toys.Gap, "measure", noted)
    return seen


def carried_out(tmp_path, registry, real, metrics=GAP, **options):
    recipe = Recipe.from_toml(RECIPE + metrics)
    return recipe.run(output=tmp_path / "run", data=real, registry=registry, report=False, **options)


def test_accepted_cases_and_validation_images_meet_the_training_split(tmp_path, registry, real, measured):
    run = carried_out(tmp_path, registry, real)
    assert 0 < len(run.dataset()) < 12
    train, val = real.split("train").ids, real.split("val").ids
    assert measured == [(train, val), (train, run.dataset().ids)]
    (row,) = run.likeness()
    assert row["metric"] == 'gap(level=1.0, least=1, weights="train:first")'
    for name, second in (("yardstick", real.split("val")), ("synthetic", run.dataset())):
        a, b = (float(data.fetch(range(len(data))).images.mean()) for data in (real.split("train"), second))
        assert row[name]["value"] == pytest.approx(b - a)
        assert row[name]["images"] == [len(train), len(second)]
        assert row[name]["conventions"] == {"weights": "first"}


def test_what_a_metric_makes_of_the_training_split_serves_both_comparisons(tmp_path, registry, real, toys, monkeypatch):
    made, measure = [], toys.Gap.measure

    def noted(self, comparison):
        comparison.shared(("first",), lambda: made.append(comparison.first.ids), of_second=False)
        comparison.shared(("second",), lambda: made.append(comparison.second.ids))
        return measure(self, comparison)

    monkeypatch.setattr(toys.Gap, "measure", noted)
    run = carried_out(tmp_path, registry, real)
    assert made == [real.split("train").ids, real.split("val").ids, run.dataset().ids]


def test_nothing_is_measured_again_until_something_changes(tmp_path, registry, real, measured):
    run = carried_out(tmp_path, registry, real)
    written = run.store.metrics.read_bytes()
    carried_out(tmp_path, registry, real, resume=True)
    assert len(measured) == 2 and run.store.metrics.read_bytes() == written
    run.store.metrics.unlink()
    carried_out(tmp_path, registry, real, resume=True)
    assert len(measured) == 4 and run.store.metrics.read_bytes() == written
    weights = run.store.jobs / "first" / "model.safetensors"
    weights.write_bytes(weights.read_bytes() + b" ")
    carried_out(tmp_path, registry, real, resume=True)
    assert len(measured) == 6 and run.store.metrics.read_bytes() != written
    events = [json.loads(line)["event"] for line in run.store.log.read_text().splitlines()]
    assert events.count("metrics") == 3


def test_a_refusal_has_its_reason_and_is_tried_again(tmp_path, registry, real, measured):
    few = '[[metric]]\nuse = "gap"\nleast = 8\n'
    run = carried_out(tmp_path, registry, real, few + GAP)
    refused, found = run.likeness()
    assert refused["yardstick"] == {"reason": "12 and 6 images are not 8"}
    assert "value" in found["yardstick"]
    carried_out(tmp_path, registry, real, few + GAP, resume=True)
    assert len(measured) == 6
    assert set(run.metrics()) == {"first", "both"}


def test_there_need_be_no_validation_split_and_no_accepted_case(tmp_path, toys, real):
    class Nothing(lf.Filter):
        """Accepts nothing."""

        name = "nothing"

        def screen(self, batch):
            brightness = batch.images.mean((1, 2, 3))
            scored = batch.with_columns(scores={"brightness": brightness})
            return scored.rejected_where(brightness >= 0, plugin="nothing", score="brightness", threshold=0.0)

    picky = toys.toy_registry(toys.entry_point("nothing", lambda: toys.module([Nothing])))
    recipe = Recipe.from_toml(
        f'[train.first]\nuse = "mean"\n[[stage]]\nuse = "blobs"\n[[stage]]\nuse = "nothing"\n{GAP}'
    )
    unsplit = real.where(lambda record: record.split != "val")
    run = recipe.run(output=tmp_path / "run", data=unsplit, registry=picky, report=False)
    (row,) = run.likeness()
    assert row["yardstick"] is None
    assert row["synthetic"] == {"reason": "no accepted case has an image"}


def test_a_metric_that_fails_leaves_everything_else_done(tmp_path, registry, real, toys, monkeypatch):
    def fails(self, comparison):
        raise ZeroDivisionError("boom")

    with monkeypatch.context() as patched:
        patched.setattr(toys.Gap, "measure", fails)
        with pytest.raises(PluginFailure, match="metric gap failed: ZeroDivisionError: boom"):
            carried_out(tmp_path, registry, real)
    run = Run(tmp_path / "run")
    assert set(run.metrics()) == {"first", "both"} and run.likeness() is None
    assert carried_out(tmp_path, registry, real, resume=True).likeness()


def test_metrics_need_real_data(tmp_path, registry):
    recipe = Recipe.from_toml('[[stage]]\nuse = "blobs"\n[[metric]]\nuse = "gap"\n')
    with pytest.raises(ConfigError, match="metric gap needs real data"):
        recipe.run(output=tmp_path / "run", registry=registry, report=False)
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("text", ["{}", "[3]", '[{"metric": "gap"}]', "["])
def test_a_damaged_file_is_named(tmp_path, registry, real, text):
    run = carried_out(tmp_path, registry, real)
    run.store.metrics.write_text(text)
    with pytest.raises(StoreError, match=r"metrics\.json"):
        run.likeness()


def test_paired_metrics_have_no_yardstick(tmp_path, registry, real, toys, monkeypatch):
    def refuses(self, comparison):
        raise DataError("no pairs")

    monkeypatch.setattr(toys.Gap, "needs_pairs", True)
    monkeypatch.setattr(toys.Gap, "measure", refuses)
    (row,) = carried_out(tmp_path, registry, real).likeness()
    assert (row["yardstick"], row["synthetic"]) == (None, {"reason": "no pairs"})
