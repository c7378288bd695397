"""A search from end to end: its trials are runs, their values are what was asked for, and failures are told."""

from __future__ import annotations

import csv
import sqlite3
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

import lesionforge as lf
from lesionforge.core.errors import ConfigError, DataError, PluginFailure, StoreError

CHAIN = "blobs(size=8) | threshold | bright"
LEVELS = ["bright.level=0..0.9"]
TRAINING = """
name = "trained"
seed = 2
[train.idle]
use = "mean"
[train.first]
use = "mean"
steps = 2
[train.both]
use = "mean"
on = ["real", "synthetic"]
start = "train:first"
steps = 2
[synthesis]
count = 9
batch_size = 4
[[stage]]
use = "blobs"
[[stage]]
use = "bright"
[[metric]]
use = "contrast"
weights = "train:first"
"""


def rows(tuning):
    return list(csv.DictReader(tuning.places.history.open(encoding="utf-8")))


def files(run):
    return {str(file.relative_to(run)): file.read_bytes() for file in sorted((run / "shards").rglob("*.png"))}


def test_every_trial_is_a_run_with_its_values_and_its_number(tune):
    tuning = tune(CHAIN, [*LEVELS, "threshold.level=0.25|0.5"], "kept")
    assert [trial.number for trial in tuning.trials] == [0, 1, 2, 3]
    for trial in tuning.trials:
        run = lf.open_run(trial.run)
        assert run.verify().ok and run.verify().complete
        stages = {stage["key"]: stage["config"] for stage in run.manifest["stages"]}
        assert stages["bright"]["level"] == trial.values["bright.level"]
        assert stages["threshold"]["level"] == trial.values["threshold.level"]
        assert (trial.cases, trial.kept) == (6, run.summary()["kept"])
        assert trial.value == (trial.kept / 6 or None)
    assert tuning.best is not None and tuning.best.value == max(trial.value or 0 for trial in tuning.trials)


def test_tables_recipe_study_and_picture_say_the_same(tune):
    tuning = tune(CHAIN, LEVELS, "score:light", direction="minimize")
    told, best = rows(tuning), tuning.best
    assert [float(row["value"]) if row["value"] else None for row in told] == [trial.value for trial in tuning.trials]
    assert float(told[-1]["best"]) == best.value == min(float(row["value"]) for row in told if row["value"])
    recipe = lf.Recipe.load(tuning.places.best)
    assert recipe.synthesis.chain.stages[2].values["level"] == best.values["bright.level"]
    assert recipe == tuning.best_recipe()
    with sqlite3.connect(tuning.places.study) as study:
        assert study.execute("select count(*) from trials").fetchone() == (4,)
    with Image.open(tuning.places.picture) as picture:
        assert min(picture.size) > 500 and np.asarray(picture.convert("L")).std() > 5
    assert lf.Tuning(tuning.path).as_dict() == tuning.as_dict()


def test_scores_are_means_over_accepted_cases(tune):
    for trial in tune(CHAIN, LEVELS, "score:light", direction="maximize").trials:
        light = [case.scores["light"] for case in lf.open_run(trial.run).cases(kept=True)]
        assert trial.value == (pytest.approx(np.mean(light)) if light else None)


def test_a_metric_compares_the_accepted_cases_with_the_split(tune, real):
    for split in ("val", "train"):
        tuning = tune(CHAIN, ["bright.level=0.0|0.1"], "contrast", split=split, name=split)
        assert len(tuning.trials) == 2
        for trial in tuning.trials:
            (found,) = lf.compare(
                real.split(split), lf.open_run(trial.run).dataset(), ["contrast"], registry=tune.registry
            ).measured
            assert (trial.value, trial.low, trial.high) == (found.value, found.low, found.high)
            assert trial.measured == "contrast"


def test_the_best_recipe_makes_the_cases_of_the_best_trial(tune, registry, real, tmp_path):
    tuning = tune(TRAINING, LEVELS, "contrast", count=6)
    recipe = lf.Recipe.load(tuning.places.best)
    assert [job.name for job in recipe.jobs] == ["idle", "first", "both"] and recipe.synthesis.count == 9
    again = recipe.run(output=tmp_path / "again", data=real, registry=registry, report=False, device="cpu")
    trial = lf.open_run(tuning.best.run)
    assert [case.sha256 for case in trial.cases()] == [case.sha256 for case in again.cases()][:6]
    assert again.metrics()["both"] == {"cases": 4.0}


def test_shared_trainings_are_done_once_and_unneeded_ones_never(tune, toys, monkeypatch):
    trained, train = [], toys.Mean.train

    def noted(self, *given):
        trained.append((self.context.name, [data and len(data) for data in given[:2]]))
        return train(self, *given)

    def evaluate(self, test, output):
        raise AssertionError("the test split is not for a search")

    monkeypatch.setattr(toys.Mean, "train", noted)
    monkeypatch.setattr(toys.Mean, "evaluate", evaluate)
    tuning = tune(TRAINING, ["bright.level=0.0|0.05|0.1"], "both.val_loss")
    assert [name for name, _ in trained] == ["first", "both", "both", "both"] and trained[0][1] == [8, 4]
    assert not list(tuning.path.rglob("train/idle"))
    for trial in tuning.trials:
        (job,) = lf.open_run(trial.run).recipe.jobs
        assert job.values["start"] == str((tuning.path / "shared/train/first").absolute())
        curve = list(csv.DictReader((trial.run / "train/both/curves.csv").open()))
        assert trial.value == min(float(row["val_loss"]) for row in curve if row["val_loss"])


def test_trainings_can_be_searched_themselves(tune):
    tuning = tune(TRAINING, ["first.steps=1|3"], "first.val_loss", count=None)
    values = {trial.values["first.steps"]: trial.value for trial in tuning.trials}
    assert set(values) == {1, 3} and not list(tuning.path.rglob("shards/0*"))
    assert tuning.best.value == min(values.values()) and tuning.trials[0].cases is None


def test_a_trial_without_cases_fails_with_its_reason_and_is_learnt_from(tune):
    tuning = tune(CHAIN, ["bright.level=0.0|0.99"], "kept")
    failed, good = sorted(tuning.trials, key=lambda trial: trial.value is not None)
    assert failed.reason == "no case was accepted; rejected by bright: light (6)" and failed.value is None
    assert (failed.cases, failed.kept) == (6, 0) and tuning.best == good
    row = next(row for row in rows(tuning) if row["state"] == "failed")
    assert (row["value"], row["reason"]) == ("", failed.reason)


def test_a_trial_with_too_few_cases_fails_where_a_least_number_is_asked_for(tune):
    tuning = tune(CHAIN, ["bright.level=0.0|0.4"], "kept", min_kept=6)
    (failed,) = (trial for trial in tuning.trials if trial.value is None)
    few = f"only {failed.kept} of 6 cases were accepted"
    assert failed.reason == f"{few}; rejected by bright: light ({6 - failed.kept})"


def test_a_trial_whose_metric_refuses_fails_with_its_reason(tune, toys, monkeypatch):
    monkeypatch.setattr(toys.Gap, "measure", lambda self, comparison: (_ for _ in ()).throw(DataError("too grey")))
    tuning = tune(CHAIN, ["bright.level=0.0|0.1"], "contrast")
    assert [trial.reason for trial in tuning.trials] == ["too grey", "too grey"] and tuning.best is None
    assert not tuning.places.best.exists() and tuning.places.picture.exists()
    with pytest.raises(StoreError, match="no trial"):
        tuning.best_recipe()


def test_values_that_a_plugin_does_not_take_together_fail_that_trial(tune):
    tuning = tune(CHAIN, ["bright.level=0.0|0.5", "bright.below=0.25|1.0"], "kept", trials=9)
    assert len(tuning.trials) == 4
    (failed,) = (trial for trial in tuning.trials if "must be below" in (trial.reason or ""))
    assert failed.values == {"bright.level": 0.5, "bright.below": 0.25} and failed.cases is None


def test_what_no_trial_could_measure_is_refused_before_the_first(tune, tmp_path):
    with pytest.raises(ConfigError, match=r"--metric contrast\(least=7\): 6 images are not 7"):
        tune(CHAIN, LEVELS, "contrast(least=7)")
    with pytest.raises(ConfigError, match="needs real data"):
        tune(CHAIN, LEVELS, "contrast", data=None)
    with pytest.raises(DataError, match="no split 'val'"):
        tune(CHAIN, LEVELS, "contrast", data=tune.real.where(lambda record: record.split != "val"))
    assert not list(tmp_path.iterdir())


def test_a_score_that_no_case_has_stops_the_search_at_its_first_trial(tune, tmp_path):
    with pytest.raises(ConfigError, match="no score is called 'dark_iou'; cases have light, mask_iou"):
        tune(CHAIN, LEVELS, "score:dark_iou")
    assert len(list((tmp_path / "tuned/trials").iterdir())) == 1
    with pytest.raises(ConfigError, match=r"measured no 'val_dice' on the validation split; .*: val_loss"):
        tune(TRAINING, LEVELS, "both.val_dice", name="other")


def test_a_plugin_that_raises_stops_the_search_unless_told_to_keep_going(tune, tmp_path):
    chain = f'blobs | bright | explodes(at=3, marker="{tmp_path}/calm")'
    with pytest.raises(PluginFailure, match="stage explodes failed"):
        tune(chain, LEVELS, "kept")
    assert lf.Tuning(tmp_path / "tuned").trials == ()
    going = tune(chain, LEVELS, "kept", name="going", keep_going=True, trials=2)
    assert ["stage explodes failed" in trial.reason for trial in going.trials] == [True, True]
    Path(tmp_path, "calm").touch()
    assert all(trial.reason is None for trial in tune(chain, ["bright.level=0.0..0.1"], "kept", name="calmed").trials)


def test_an_output_in_use_is_left_alone(tune, tmp_path):
    tune(CHAIN, LEVELS, "kept", trials=1)
    with pytest.raises(StoreError, match="holds a search already; add --resume"):
        tune(CHAIN, LEVELS, "kept", trials=1)
    with pytest.raises(StoreError, match="cannot be resumed, since something changed: metric"):
        tune(CHAIN, LEVELS, "score:mask_iou", trials=1, resume=True)
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine/thesis.txt").write_text("mine")
    with pytest.raises(StoreError, match="not empty"):
        tune(CHAIN, LEVELS, "kept", name="mine")
    assert [file.name for file in (tmp_path / "mine").iterdir()] == ["thesis.txt"]


def test_more_trials_go_on_where_the_search_ended(tune):
    tune(CHAIN, LEVELS, "kept", trials=2)
    more = tune(CHAIN, LEVELS, "kept", trials=5, resume=True)
    at_once = tune(CHAIN, LEVELS, "kept", trials=5, name="at-once")
    assert [trial.values for trial in more.trials] == [trial.values for trial in at_once.trials]
    assert more.places.history.read_bytes() == at_once.places.history.read_bytes()
    assert files(more.trials[4].run) == files(at_once.trials[4].run)


def test_a_damaged_study_is_one_line(tune):
    tuning = tune(CHAIN, LEVELS, "kept", trials=1)
    tuning.places.study.write_bytes(b"no database" * 1000)
    with pytest.raises(StoreError, match=r"study .*study\.sqlite3 cannot be used") as caught:
        tune(CHAIN, LEVELS, "kept", trials=2, resume=True)
    assert "\n" not in str(caught.value)


def test_a_damaged_plan_is_one_line(tune):
    tuning = tune(CHAIN, LEVELS, "kept", trials=1)
    tuning.places.plan.write_text('{"metric": "kept"}')
    with pytest.raises(StoreError, match="lacks entries that every search has"):
        tune(CHAIN, LEVELS, "kept", trials=2, resume=True)


def test_without_optuna_one_line_says_what_to_install(tune, monkeypatch, tmp_path):
    monkeypatch.setitem(__import__("sys").modules, "optuna", None)
    with pytest.raises(lf.PluginError, match=r'pip install "lesionforge\[tune\]"'):
        tune(CHAIN, LEVELS, "kept")
    assert not list(tmp_path.iterdir())
