from __future__ import annotations

import json

import pytest

from lesionforge.core.chain import Chain
from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import DataError, StoreError
from lesionforge.core.loading import load_dataset
from lesionforge.core.recipe import Recipe, Synthesis


@pytest.fixture
def run(tmp_path):
    """A finished run of four phantoms, of which case 1 was rejected by hand."""
    recipe = Recipe(synthesis=Synthesis(Chain.parse("phantom(size=32)"), count=4, batch_size=2))
    finished = recipe.run(output=tmp_path / "my run", device="cpu", report=False)
    change(
        finished,
        1,
        lambda row: row.update(verdict={"kept": False, "by": "x", "score": "s", "value": 1, "threshold": 0}),
    )
    return finished


def change(run, number, edit):
    ledger = run.store.shard(0) / "ledger.jsonl"
    rows = [json.loads(line) for line in ledger.read_text().splitlines()]
    edit(rows[number])
    ledger.write_text("".join(json.dumps(row) + "\n" for row in rows))


def load(path) -> Dataset:
    return load_dataset(f"run:{path}")


def test_kept_cases_with_their_seeds(run):
    dataset = load(run.path)
    assert dataset.ids == ("case-00000000", "case-00000002", "case-00000003")
    seeds = [record.metadata["seed"] for record in dataset.records]
    assert seeds == [str(case.seed) for case in run.cases(kept=True)]
    batch = dataset.fetch(range(3), masks=True)
    assert batch.images is not None and batch.images.shape == (3, 3, 32, 32)
    assert (
        dataset.phantom
        and dataset.name == "my run"
        and set(dataset.classes)
        <= {
            "nevus",
            "melanoma",
            "seborrheic_keratosis",
        }
    )


@pytest.mark.parametrize(
    ("edit", "said"),
    [
        (lambda row: row.pop("verdict"), "malformed"),
        (lambda row: row["verdict"].pop("kept"), "malformed"),
        (lambda row: row.update(files=["a"]), "malformed"),
        (lambda row: row["files"].update(image="../../../secret.png"), "names a file outside it"),
        (lambda row: row["files"].update(mask="/etc/passwd"), "names a file outside it"),
    ],
)
def test_bad_rows_are_refused(run, edit, said):
    change(run, 0, edit)
    with pytest.raises(StoreError, match=said) as caught:
        load(run.path)
    assert "\n" not in str(caught.value)


def test_what_is_no_run_is_refused(tmp_path, run):
    with pytest.raises(StoreError, match="is no run folder"):
        load(tmp_path)
    for number in (0, 2, 3):
        change(run, number, lambda row: row["files"].clear())
    with pytest.raises(DataError, match=r"no case in .* has an image and was kept"):
        load(run.path)
    (run.store.shard(0) / "ledger.jsonl").write_text('{"id": ')
    with pytest.raises(StoreError, match="cannot be read"):
        load(run.path)
