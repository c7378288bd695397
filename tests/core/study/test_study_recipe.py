"""Study files: what they may say, what they mean as a grid, and what is refused in one line."""

from __future__ import annotations

from collections import Counter

import pytest

from lesionforge.core.errors import LesionforgeError
from lesionforge.core.study.grid import Amount, rows, trainings
from lesionforge.core.study.recipe import Study
from lesionforge.core.study.replacement import replaced


def test_a_study_survives_being_written_as_toml(toy):
    assert Study.from_toml(toy.to_toml()) == toy


def test_defaults_are_written_out_and_the_budget_decides_which_duration_counts(toy, toy_registry):
    resolved = toy.resolved(toy_registry)
    assert resolved.models[0].values["steps"] == 12 and resolved.models[0].values["batch_size"] == 4
    assert resolved.resolved(toy_registry) == resolved == Study.from_toml(resolved.to_toml())
    by_epochs = toy.with_value("study.budget", "epochs").with_value("model.pixels.epochs", 3).resolved(toy_registry)
    assert "steps" not in by_epochs.models[0].values and by_epochs.models[0].values["epochs"] == 3


def test_the_grid_is_every_arm_at_every_count_and_seed(toy):
    grid = list(rows(toy))
    assert len(grid) == 2 * 2 * 3
    assert [row.seed for row in grid] == [0] * 6 + [1] * 6
    assert Counter(row.arm for row in grid) == {"R": 4, "S": 4, "R+S": 4}


def test_an_arm_of_synthetic_cases_alone_is_trained_once_for_all_real_counts(toy):
    assert len(trainings(toy)) == 2 * (2 + 1 + 2)
    matched = replaced(toy, "arm.S.count", None)
    matched = replaced(matched, "arm.S.ratio", 1.0)
    assert len(trainings(matched)) == 2 * (2 + 2 + 2)


def test_ratios_multiply_arms_of_both_and_zero_is_the_arm_without(toy):
    study = replaced(replaced(toy, "arm.R+S.ratio", None), "study.ratios", [0, 0.5, 2])
    mixed = [row for row in rows(study) if row.arm == "R+S" and row.seed == 0]
    assert [str(row.amount) for row in mixed] == ["x0", "x0.5", "x2"] * 2
    plain = [row.training for row in rows(study) if row.arm == "R" and row.seed == 0]
    assert [row.training for row in mixed if row.amount.nothing] == plain


def test_folds_multiply_everything(toy):
    study = toy.with_value("study.folds", 3)
    assert len(list(rows(study))) == 3 * len(list(rows(toy)))
    assert {row.fold for row in rows(study)} == {0, 1, 2}


@pytest.mark.parametrize(
    ("amount", "number"),
    [(Amount("all"), 90), (Amount("count", 7), 7), (Amount("ratio", 0.5), 25), (Amount("ratio", 0.25), 13)],
)
def test_amounts_are_numbers_of_cases(amount, number):
    assert amount.of(50, 90) == number


@pytest.mark.parametrize(
    ("path", "value", "read"),
    [
        ("study.seeds", [5], lambda s: s.settings.seeds == (5,)),
        ("data.size", 64, lambda s: s.data.size == 64),
        ("model.pixels.steps", 9, lambda s: s.models[0].values["steps"] == 9),
        ("arm.R+S.ratio", 2.0, lambda s: s.arms[2].ratio == 2.0),
        (
            "synthetic.discs.run",
            "runs/x",
            lambda s: (s.synthetic["discs"].run, s.synthetic["discs"].data) == ("runs/x", None),
        ),
        ("name", "other", lambda s: s.name == "other"),
    ],
)
def test_one_value_is_replaced(toy, path, value, read):
    assert read(toy.with_value(path, value))


def test_a_recipe_that_makes_a_set_is_changed_by_its_own_paths(toy):
    study = toy.with_value("synthetic.discs.recipe", "demo").with_value("synthetic.discs.set.generator.steps", 5)
    assert dict(study.synthetic["discs"].set) == {"generator.steps": 5}
    assert Study.from_toml(study.to_toml()) == study


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda t: t.replace("[study]", "[studie]"), "has no [study]; a recipe is carried out by lesionforge run"),
        (lambda t: t.replace("seeds = [0, 1]", "seeds = [0, 0]"), "none twice"),
        (lambda t: t.replace("seeds = [0, 1]", "seeds = []"), "at least one is needed"),
        (lambda t: t.replace('real_counts = [6, "all"]', "real_counts = [0]"), "study.real_counts"),
        (lambda t: t.replace('use = "pixels"', ""), "key 'use' is required"),
        (lambda t: t.replace('use = "pixels"', 'use = "nothing"'), "no trainer is called 'nothing'"),
        (lambda t: t.replace("steps = 12", "stepps = 12"), "unknown key 'stepps'"),
        (lambda t: t.replace("steps = 12", ""), "needs steps, the same number for all arms"),
        (lambda t: t.replace("steps = 12", 'steps = 12\nstart = "train:R"'), "no trainings to refer to"),
        (lambda t: t.replace('name = "S"', 'name = "R"'), "two entries of [[arm]] are called 'R'"),
        (lambda t: t.replace('"discs"\ncount', '"other"\ncount'), "there is no [synthetic.other]; there are discs"),
        (lambda t: t.replace("real = true\n[[arm]]", "[[arm]]"), "an arm needs real = true, synthetic = NAME, or both"),
        (lambda t: t.replace("ratio = 1.0", "ratio = 1.0\ncount = 3"), "give ratio or count, not both"),
        (lambda t: t.replace("count = 8", "count = 0"), "an arm without real images needs synthetic ones"),
        (lambda t: t.replace('data = "toy-discs"', ""), "exactly one of run, recipe and data is needed"),
        (lambda t: t.replace('"toy-discs"', '"toy-discs"\nset = {a = 1}'), "set and trained_on go with recipe alone"),
        (lambda t: t.replace("[study]", '[study]\ncompare = [["R", "T"]]'), "there is no arm 'T'; there are R, S, R+S"),
        (lambda t: t.replace("[study]", '[study]\ncompare = [["R", "R"]]'), "an arm is compared with itself"),
        (lambda t: t + '[[arm]]\nname = "R2"\nreal = true\n', "'R' and 'R2' are both of real images alone"),
        (lambda t: t + '[[external]]\nname = "test"\ndata = "toy-discs"\n', "cannot be called 'test'"),
        (lambda t: t + '[[external]]\nname = "../x"\ndata = "toy-discs"\n', "external.0.name"),
        (lambda t: t[: t.index("[[arm]]")], "at least one [model.NAME] and one [[arm]] are needed"),
        (lambda t: t.replace("[study]", "[study"), "is no valid TOML"),
    ],
)
def test_a_wrong_study_is_one_clear_line(toy_text, toy_registry, change, said):
    with pytest.raises(LesionforgeError) as caught:
        Study.from_toml(change(toy_text)).resolved(toy_registry)
    assert said in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("path", "said"),
    [
        ("modell.pixels.steps", "there is nothing called 'modell'"),
        ("model.pixel.steps", "model has pixels; expected model.NAME.KEY=VALUE"),
        ("study.sedes", "unknown key 'sedes'"),
    ],
)
def test_a_place_that_is_not_there_is_named(toy, path, said):
    with pytest.raises(LesionforgeError, match=said.replace("[", r"\[")):
        toy.with_value(path, 1)
