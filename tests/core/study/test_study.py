"""A study is carried out once for each of its trainings, however it is cut up, stopped, changed or distributed."""

from __future__ import annotations

import csv
import json
import os
import signal
import time
from dataclasses import replace
from functools import partial

import pytest
import torch

import lesionforge as lf
from lesionforge.core.errors import ConfigError, DataError, StoreError
from lesionforge.core.study.recipe import Study
from lesionforge.core.study.replacement import replaced
from lesionforge.core.study.results import StudyResults

RESULTS = ("cells.csv", "per_image.csv", "comparisons.csv", "comparisons.parquet", "summary.json")


def tables(folder):
    return {name: (folder / "results" / name).read_bytes() for name in RESULTS}


def carried_out(study, real, registry, output, **options):
    return study.run(output=output, data=real, registry=registry, device="cpu", report=False, **options)


def trained(folder):
    """Names of the trainings that were carried out, in order; one entry each time."""
    events = [json.loads(line) for line in (folder / "log.jsonl").read_text().splitlines()]
    return [event["name"] for event in events if event["event"] == "job"]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, study_registry, toy_text, make_discs):
    """The toy study, carried out without interruption."""
    folder = tmp_path_factory.mktemp("studies") / "whole"
    carried_out(Study.from_toml(toy_text), make_discs(48), study_registry(), folder)
    return folder


def test_each_training_is_carried_out_once_and_all_rows_have_results(whole):
    assert len(trained(whole)) == len(set(trained(whole))) == 10
    results = StudyResults(whole)
    cells = results.table("cells")
    assert len(cells) == 12 and {row["cell"] for row in cells} == set(trained(whole))
    assert {(row["arm"], row["real_count"], row["synthetic_count"]) for row in cells} == {
        ("R", "6", "0"),
        ("R", "24", "0"),
        ("S", "0", "8"),
        ("R+S", "6", "6"),
        ("R+S", "24", "24"),
    }
    images = results.table("per_image")
    assert len(images) == 12 * 16 and all(0 <= float(row["dice"]) <= 1 for row in images)
    compared = results.table("comparisons")
    assert {(row["arm"], row["against"], row["metric"]) for row in compared} == {
        (arm, "R", metric) for arm in ("S", "R+S") for metric in ("dice", "iou")
    }
    assert all(row["p"] == "" or (row["images"] == "16" and row["difference"]) for row in compared)


def test_arms_of_a_seed_share_their_real_images_and_seeds_do_not(whole):
    cells = StudyResults(whole).table("cells")

    def seen(arm, seed):
        key = next(r["cell"] for r in cells if (r["arm"], r["seed"], r["real_count"]) == (arm, seed, "6"))
        lines = (whole / "cells" / key / "training_data.jsonl").read_text().splitlines()
        return {json.loads(line)[0] for line in lines}

    assert seen("R", "0") < seen("R+S", "0")
    assert seen("R", "0") != seen("R", "1")


def test_resuming_a_finished_study_trains_nothing_and_changes_nothing(whole, real, toy, toy_registry):
    before, times = tables(whole), trained(whole)
    carried_out(toy, real, toy_registry, whole, resume=True)
    assert tables(whole) == before and trained(whole) == times
    with pytest.raises(StoreError, match="holds a study already; add --resume"):
        carried_out(toy, real, toy_registry, whole)


def test_shards_and_a_last_call_make_what_one_process_makes(whole, real, toy, toy_registry, tmp_path):
    output = tmp_path / "shared"
    for part in (1, 2, 3):
        results = carried_out(toy, real, toy_registry, output, shard=(part, 3))
        assert not results.assembled
    assert sorted(trained(output)) == sorted(trained(whole))
    with pytest.raises(StoreError, match=r"summary\.json cannot be read"):
        results.summary()
    carried_out(toy, real, toy_registry, output, resume=True)
    assert tables(output) == tables(whole)
    with pytest.raises(ConfigError, match="shard 4/3"):
        carried_out(toy, real, toy_registry, output, shard=(4, 3))


def test_a_further_seed_trains_only_its_own_cells(real, toy, toy_registry, tmp_path):
    output = tmp_path / "grown"
    carried_out(toy.with_value("study.seeds", [0]), real, toy_registry, output)
    first = trained(output)
    carried_out(toy.with_value("study.seeds", [0, 3]), real, toy_registry, output, resume=True)
    assert trained(output)[: len(first)] == first and len(trained(output)) == 2 * len(first)


def test_an_external_set_is_evaluated_without_training_again(real, toy, toy_registry, tmp_path):
    output = tmp_path / "tested"
    study = replaced(toy, "study.seeds", [0])
    carried_out(study, real, toy_registry, output)
    first, before = trained(output), {file: file.read_bytes() for file in output.glob("cells/*/per_image.csv")}
    text = study.to_toml() + '[[external]]\nname = "elsewhere"\ndata = "toy-discs(first=900, count=9)"\n'
    results = carried_out(Study.from_toml(text), real, toy_registry, output, resume=True)
    assert trained(output) == first
    assert {file: file.read_bytes() for file in before} == before
    rows = [row for row in results.table("per_image") if row["test"] == "elsewhere"]
    assert {row["image_id"] for row in rows} == {f"disc-{900 + n:04d}" for n in range(9)}
    kept = sorted(path.name for path in next(output.glob("cells/*/external/*")).iterdir())
    assert kept == ["masks.npz", "metrics.json", "per_image.csv"]
    assert {row["test"] for row in results.table("comparisons")} == {"test", "elsewhere"}


def test_changed_data_or_settings_are_other_cells(whole, real, toy, toy_registry, tmp_path):
    other = replace(real.records[0], mask=1 - real.records[0].mask)
    changed = replace(real, records=(other, *real.records[1:]))
    studies = [
        (toy.with_value("model.pixels.batch_size", 3), real),
        (toy, changed),
        (toy.with_value("study.validation", False), real),
    ]
    keys = set(trained(whole))
    for number, (study, data) in enumerate(studies):
        small = study.with_value("study.seeds", [0]).with_value("study.real_counts", ["all"])
        carried_out(small, data, toy_registry, tmp_path / str(number))
        # A training on synthetic cases alone does not see the image whose mask changed.
        assert len(keys & set(trained(tmp_path / str(number)))) == (1 if data is changed else 0)


def test_folds_validate_in_turn_and_the_test_split_stays(real, toy, toy_registry, tmp_path):
    study = toy.with_value("study.seeds", [0]).with_value("study.real_counts", ["all"]).with_value("study.folds", 2)
    results = carried_out(study, real, toy_registry, tmp_path / "folds")
    cells = results.table("cells")
    assert {(row["fold"], row["real_count"]) for row in cells if row["arm"] == "R"} == {("0", "16"), ("1", "16")}
    held = {}
    for key in (row["cell"] for row in cells if row["arm"] == "R"):
        lines = (tmp_path / "folds/cells" / key / "validation_data.jsonl").read_text().splitlines()
        held[key] = {json.loads(line)[0] for line in lines}
    assert len(set().union(*held.values())) == 32 == sum(map(len, held.values()))
    assert any("folds of a seed share" in remark for remark in results.summary()["remarks"])


@pytest.mark.parametrize(
    ("path", "value", "said"),
    [
        ("arm.R+S.ratio", 9.0, "discs has 30 cases for training, but an arm takes 54"),
        ("study.real_counts", [25], "discs has 24 cases for training, but an arm takes 25"),
        ("synthetic.discs.data", "toy-discs(count=0)", "count"),
    ],
)
def test_too_few_cases_are_told_before_anything_is_trained(real, toy, toy_registry, tmp_path, path, value, said):
    with pytest.raises((DataError, ConfigError), match=said):
        carried_out(toy.with_value(path, value), real, toy_registry, tmp_path / "few")
    assert not (tmp_path / "few" / "log.jsonl").exists()


def test_data_without_a_test_split_and_no_data_at_all_are_refused(make_discs, toy, toy_registry, tmp_path):
    with pytest.raises(DataError, match="has no split 'test'"):
        carried_out(toy, make_discs(12, splits=("train", "val")), toy_registry, tmp_path / "none")
    with pytest.raises(ConfigError, match="a study needs real data"):
        carried_out(toy, None, toy_registry, tmp_path / "none")
    assert not (tmp_path / "none").exists()


def test_a_folder_of_something_else_is_left_alone(real, toy, toy_registry, tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty and holds no study"):
        carried_out(toy, real, toy_registry, tmp_path)
    assert [path.name for path in tmp_path.iterdir()] == ["thesis.txt"]


@pytest.mark.parametrize("text", ["toy_text", "made_text"])
def test_killed_anywhere_and_resumed_makes_the_same_tables(request, text, real, toy_registry, tmp_path):
    study, kills = Study.from_toml(request.getfixturevalue(text)), 0
    torch.set_num_threads(1)
    carried_out(study, real, toy_registry, tmp_path / "whole")
    for number in range(80):
        child = in_child(partial(carried_out, study, real, toy_registry, tmp_path / "killed", resume=number > 0))
        ended, deadline = 0, time.monotonic() + 0.03 + 0.05 * (number % 7)
        while not ended and time.monotonic() < deadline:
            ended, status = os.waitpid(child, os.WNOHANG)
            time.sleep(0.003)
        if ended:
            assert os.waitstatus_to_exitcode(status) == 0
            break
        os.kill(child, signal.SIGKILL)
        os.waitpid(child, 0)
        kills += 1
    else:
        carried_out(study, real, toy_registry, tmp_path / "killed", resume=True)
    assert kills >= 3
    assert tables(tmp_path / "killed") == tables(tmp_path / "whole")


def in_child(work):
    """Do ``work`` in a forked child, which leaves with 0 when it is done; return the child."""
    child = os.fork()
    if child:
        return child
    code = 1
    try:
        work()
        code = 0
    finally:
        os._exit(code)


def test_two_processes_at_once_share_the_grid_and_make_a_set_once(made_text, real, toy_registry, tmp_path):
    study = Study.from_toml(made_text)
    carried_out(study, real, toy_registry, tmp_path / "whole")
    output = tmp_path / "together"
    works = [partial(carried_out, study, real, toy_registry, output, shard=(part, 2)) for part in (1, 2)]
    children = [in_child(work) for work in works]
    assert [os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) for child in children] == [0, 0]
    carried_out(study, real, toy_registry, output, resume=True)
    assert tables(output) == tables(tmp_path / "whole") and len(trained(output)) == 10
    assert len(list((output / "synthetic").iterdir())) == 1


def test_a_begun_cell_of_another_machine_is_begun_anew(whole, real, toy, toy_registry, tmp_path):
    output = tmp_path / "moved"
    carried_out(toy, real, toy_registry, output)
    cell = next(iter(sorted(output.glob("cells/*"))))
    facts = json.loads((cell / "job.json").read_text())
    (cell / "metrics.json").unlink()
    (cell / "job.json").write_text(json.dumps({**facts, "machine": {**facts["machine"], "capability": "other"}}))
    carried_out(toy, real, toy_registry, output, resume=True)
    assert tables(output) == tables(whole)
    assert "begun anew" in (output / "log.jsonl").read_text()


def test_observers_hear_of_the_grid(real, toy, toy_registry, tmp_path):
    heard = []

    class Listener:
        @lf.hookimpl
        def grid_started(self, output, cells):
            heard.append((output, cells))

    carried_out(toy, real, toy_registry, tmp_path / "heard", observers=[Listener()])
    ((output, cells),) = heard
    assert output == tmp_path / "heard" and len(cells) == 10
    assert cells[0][1] == "pixels, 6 real, seed 0" and cells[2][1] == "pixels, 6 real + 6 discs, seed 0"


def test_tables_are_tidy(whole):
    parquet = pytest.importorskip("pyarrow.parquet")
    for name in ("cells", "per_image", "comparisons"):
        kept = parquet.read_table(whole / "results" / f"{name}.parquet").to_pylist()
        with (whole / "results" / f"{name}.csv").open(newline="") as file:
            written = list(csv.DictReader(file))
        assert [set(row) for row in kept] == [set(row) for row in written]
        assert all(str(row["model"]) == other["model"] for row, other in zip(kept, written, strict=True))
