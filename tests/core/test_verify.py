"""verify finds whatever was changed behind lesionforge's back."""

from __future__ import annotations

import json

import pytest

import lesionforge as lf
from lesionforge.core.errors import StoreError
from lesionforge.core.recipe import Recipe
from lesionforge.core.store import LEDGER, LEDGER_SEAL
from lesionforge.testing import disc_dataset

RECIPE = """
[train.first]
use = "mean"
[synthesis]
count = 6
shard_size = 4
batch_size = 2
[[stage]]
use = "blobs"
[[stage]]
use = "started"
start = "train:first"
"""

REJECTED = {"kept": False, "by": "x", "score": "s", "value": 1.0, "threshold": 0.0}


@pytest.fixture
def run(toys, tmp_path):
    class Started(toys.Threshold):
        """Loads a checkpoint."""

        name = "started"

        class Config(toys.Threshold.Config):
            start: lf.Checkpoint = "none"

    registry = toys.toy_registry(toys.entry_point("more", lambda: toys.module([Started])))
    data = disc_dataset(12, 8)
    return Recipe.from_toml(RECIPE).run(output=tmp_path / "run", data=data, registry=registry, report=False)


def edited(run, number, **changes):
    """Change one row of the first ledger, and seal it again."""
    from lesionforge.core.manifest import text_hash

    shard = run.store.shard(0)
    rows = [json.loads(line) for line in (shard / LEDGER).read_text().splitlines()]
    rows[number].update(changes)
    text = "".join(json.dumps(row) + "\n" for row in rows)
    (shard / LEDGER).write_text(text)
    (shard / LEDGER_SEAL).write_text(text_hash(text) + "\n")


def test_an_untouched_run_has_no_problem(run):
    assert run.verify().ok and run.verify().complete


@pytest.mark.parametrize(
    "changes",
    [{"seed": 5}, {"index": 3}, {"id": "case-00000077"}, {"verdict": REJECTED}],
)
def test_an_edited_row_is_found_even_under_a_new_seal(run, changes):
    edited(run, 1, **changes)
    assert not run.verify().ok


def test_an_edited_ledger_breaks_its_seal(run):
    ledger = run.store.shard(0) / LEDGER
    ledger.write_text(ledger.read_text().replace('"nevus"', '"naevus"'))
    assert not run.verify().ok
    (run.store.shard(0) / LEDGER_SEAL).unlink()
    assert not run.verify().ok


def test_another_recipe_or_checkpoint_is_found(run):
    text = run.store.recipe.read_text()
    run.store.recipe.write_text(text.replace("seed = 0", "seed = 1"))
    assert any("recipe" in problem for problem in lf.open_run(run.path).verify().problems)
    run.store.recipe.write_text(text)
    assert lf.open_run(run.path).verify().ok
    weights = run.store.jobs / "first" / "model.safetensors"
    weights.write_bytes(weights.read_bytes()[:-1] + b"\x01")
    assert any("started" in problem and "start" in problem for problem in run.verify().problems)


def test_a_row_without_a_manifest_and_a_damaged_manifest_are_one_line(run):
    shard = run.store.shard(0)
    rows = [json.loads(line) for line in (shard / LEDGER).read_text().splitlines()]
    del rows[0]["manifest"]
    (shard / LEDGER).write_text("".join(json.dumps(row) + "\n" for row in rows))
    with pytest.raises(StoreError, match="malformed"):
        run.verify()
    run.store.manifest.write_text("{")
    with pytest.raises(StoreError, match=r"manifest\.json"):
        run.verify()
