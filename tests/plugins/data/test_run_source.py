from __future__ import annotations

import json
from pathlib import Path

import pytest

from lesionforge.core.errors import DataError, StoreError
from lesionforge.plugins.data.folders import Run


def row(index: int, *, kept: bool = True, **changes: object) -> dict[str, object]:
    name = f"case-{index:08d}"
    return {
        "id": name,
        "index": index,
        "seed": 2**63 + index,
        "label": "nevus",
        "prompt": None,
        "verdict": {"kept": kept},
        "files": {"image": f"{'' if kept else 'rejected/'}images/{name}.png", "mask": f"masks/{name}.png"},
        **changes,
    }


@pytest.fixture
def make_run(tmp_path, write_image, write_mask):
    def make(*rows: dict[str, object], manifest: object = None) -> Path:
        for item in rows:
            shard = tmp_path / "run" / "shards" / f"{int(str(item['index'])) // 2 * 2:08d}"
            write_image(shard / "images" / f"{item['id']}.png")
            write_mask(shard / "masks" / f"{item['id']}.png")
            with (shard / "ledger.jsonl").open("a", encoding="utf-8") as file:
                file.write(json.dumps(item) + "\n")
        if manifest is not None:
            (tmp_path / "run" / "manifest.json").write_text(json.dumps(manifest))
        return tmp_path / "run"

    return make


def test_kept_cases_with_their_seeds(make_run):
    dataset = Run().load(str(make_run(row(0), row(1, kept=False), row(2, prompt="brown", label=None))))
    assert dataset.ids == ("case-00000000", "case-00000002")
    assert [record.metadata["seed"] for record in dataset.records] == [str(2**63), str(2**63 + 2)]
    assert [(record.label, record.caption) for record in dataset.records] == [("nevus", None), (None, "brown")]
    assert dataset.fetch([0, 1], masks=True).masks.sum() == 24
    assert not dataset.has_splits() and not dataset.phantom


def test_a_case_without_a_mask_is_fine(make_run):
    item = row(0)
    item["files"] = {"image": "images/case-00000000.png"}
    assert Run().load(str(make_run(item))).records[0].mask is None


@pytest.mark.parametrize(
    ("manifest", "phantom"),
    [
        ({"stages": [{"plugin": "phantom"}]}, True),
        ({"stages": [{"plugin": "ddpm"}], "data": {"phantom": True}}, True),
        ({"stages": [{"plugin": "ddpm"}], "data": {"phantom": False}}, False),
        ({"stages": [{"plugin": "ddpm"}], "data": None}, False),
    ],
)
def test_runs_that_show_phantoms_are_marked(make_run, manifest, phantom):
    assert Run().load(str(make_run(row(0), manifest=manifest))).phantom is phantom


@pytest.mark.parametrize(
    ("item", "message"),
    [
        (row(0, verdict={}), "lacks verdict.kept"),
        (row(0, files=None), "lacks verdict.kept or files"),
        (row(0, files={"image": "../../../secret.png"}), "leads out of"),
        (row(0, files={"image": "images/absent.png"}), "does not exist"),
        (row(0, files={"image": 3}), "must be text"),
        (row(0, kept=False), "none of the 1 cases"),
    ],
)
def test_bad_rows_are_refused(make_run, item, message):
    with pytest.raises(DataError, match=message):
        Run().load(str(make_run(item)))


def test_what_is_no_run_is_refused(tmp_path, make_run):
    with pytest.raises(DataError, match="no finished shards"):
        Run().load(str(tmp_path))
    run = make_run(row(0))
    (run / "shards" / "00000000" / "ledger.jsonl").write_text('{"id": ')
    with pytest.raises(StoreError, match="cannot be read"):
        Run().load(str(run))
