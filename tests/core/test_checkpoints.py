"""Checkpoints that ship with the package and those of the hub are found, recorded and verified."""

from __future__ import annotations

import json
import shutil

import pytest

import lesionforge as lf
from lesionforge.core import checkpoints
from lesionforge.core.chain import Chain
from lesionforge.core.checkpoints import cached_snapshot, checkpoint_path, hub_revision, is_hub_name
from lesionforge.core.errors import CheckpointError
from lesionforge.core.manifest import published_hash
from lesionforge.core.recipe import Job, Recipe
from lesionforge.testing import disc_dataset

FIRST, SECOND = "a" * 40, "b" * 40


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    folder = tmp_path / "checkpoints"
    monkeypatch.setattr(checkpoints, "SHIPPED", folder)
    for name in ("small", "large"):
        (folder / name).mkdir(parents=True)
        (folder / name / "model.safetensors").write_text(name)
    return folder


@pytest.fixture
def hub(tmp_path, monkeypatch):
    """A cache that holds two revisions of one model, the first as its main branch."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    model = tmp_path / "hub" / "models--clinic--skin"
    for revision in (FIRST, SECOND):
        (model / "snapshots" / revision).mkdir(parents=True)
        (model / "snapshots" / revision / "model.safetensors").write_text(revision)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(FIRST)
    return model


@pytest.fixture
def started(toys):
    """A registry with a filter and a trainer that name checkpoints and note which they were given."""

    class Started(toys.Threshold):
        """Loads a checkpoint."""

        name = "started"

        class Config(toys.Threshold.Config):
            start: lf.Checkpoint

        def setup(self, context):
            super().setup(context)
            given.append(self.config.start)

    class Learner(toys.Mean):
        """Starts from a checkpoint."""

        name = "learner"

        def setup(self, context):
            super().setup(context)
            given.append(self.config.start)

    given: list[str] = []
    registry = toys.toy_registry(toys.entry_point("more", lambda: toys.module([Started, Learner])))
    return registry, given


def finished(registry, folder, start):
    chain = Chain.parse(f'blobs | started(start="{start}")')
    chain.run(output=folder, count=2, registry=registry, report=False)
    return lf.open_run(folder)


def test_a_builtin_checkpoint_is_used_recorded_and_verified(shipped, started, tmp_path):
    registry, given = started
    run = finished(registry, tmp_path / "run", "builtin:small")
    assert set(given) == {str(shipped / "small")}
    assert 'start = "builtin:small"' in run.store.recipe.read_text()
    (stage,) = [stage for stage in run.manifest["stages"] if stage["key"] == "started"]
    assert stage["checkpoints"] == {"start": published_hash(shipped / "small")} and stage["revisions"] == {}
    assert run.verify().ok and not run.verify().notes
    (shipped / "small" / "model.safetensors").write_text("other")
    assert any("start" in problem for problem in run.verify().problems)
    shutil.rmtree(shipped / "small")
    assert run.verify().ok and any("not there to check" in note for note in run.verify().notes)


def test_a_training_may_start_from_a_builtin_checkpoint(shipped, started, tmp_path):
    registry, given = started
    recipe = Recipe(jobs=(Job("a", "learner", values={"start": "builtin:large"}),))
    recipe.run(output=tmp_path / "run", data=disc_dataset(12, 8), registry=registry, report=False)
    facts = json.loads((tmp_path / "run" / "train" / "a" / "job.json").read_text())
    assert given == [str(shipped / "large")]
    assert facts["checkpoints"] == {"start": published_hash(shipped / "large")}


def test_a_builtin_checkpoint_that_does_not_ship_shows_before_any_work(shipped, registry):
    reason = r"training a: start: 'builtin:medium' names no checkpoint that ships .* there are large, small"
    with pytest.raises(CheckpointError, match=reason):
        Recipe(jobs=(Job("a", "mean", values={"start": "builtin:medium"}),)).resolved(registry)
    shutil.rmtree(shipped)
    with pytest.raises(CheckpointError, match="there are none"):
        checkpoint_path("builtin:small")


@pytest.mark.parametrize("name", ["builtin:", "builtin:..", "builtin:small/model.safetensors", "builtin:/etc"])
def test_a_builtin_name_is_no_path(shipped, name):
    with pytest.raises(CheckpointError, match="names no checkpoint that ships"):
        checkpoint_path(name)


def test_a_hub_name_is_found_in_the_cache_by_branch_and_by_revision(hub):
    assert checkpoint_path("clinic/skin") == hub / "snapshots" / FIRST
    assert checkpoint_path(f"clinic/skin@{SECOND}") == hub / "snapshots" / SECOND
    assert hub_revision(hub / "snapshots" / SECOND) == SECOND
    assert hub_revision(hub) is None
    assert cached_snapshot("clinic/other") is None and str(checkpoint_path("clinic/other")) == "clinic/other"


@pytest.mark.parametrize("name", ["model", "../skin", "./skin", "a/b/c", "/clinic/skin", "clinic/skin@", "a b/c"])
def test_other_names_are_no_hub_names(name):
    assert not is_hub_name(name) and cached_snapshot(name) is None


def test_an_existing_path_comes_before_a_hub_name(hub, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "clinic" / "skin").mkdir(parents=True)
    assert str(checkpoint_path("clinic/skin")) == "clinic/skin"


def test_the_hubs_revision_is_recorded_and_verify_looks_at_that_one(hub, started, tmp_path):
    registry, _ = started
    run = finished(registry, tmp_path / "run", "clinic/skin")
    (stage,) = [stage for stage in run.manifest["stages"] if stage["key"] == "started"]
    assert stage["revisions"] == {"start": FIRST}
    assert stage["checkpoints"] == {"start": published_hash(hub / "snapshots" / FIRST)}
    (hub / "refs" / "main").write_text(SECOND)
    assert run.verify().ok and not run.verify().notes
    (hub / "snapshots" / FIRST / "model.safetensors").write_text("damaged")
    assert any("start" in problem for problem in run.verify().problems)
