"""Proposals are a function of the seed and the finished trials alone, and come back from SQLite as they went in."""

from __future__ import annotations

import pytest

from lesionforge.core.tuning.sampling import StudyFile, distribution, propose, tried_values
from lesionforge.core.tuning.spaces import Space

SPACES = (
    Space("a.x", "", "float", 1.0, 8.0, log=True),
    Space("a.n", "", "int", 10, 60, step=5),
    Space("b.c", "", "choice", choices=(True, 1, 1.0, "one", [1, 2])),
)


def searched(file, trials, seed=3, spaces=SPACES, lost=()):
    """Values tried by a search of (x - 3)^2 whose study is opened anew for every trial."""
    tried = []
    for number in range(trials):
        study = StudyFile(file, "minimize")
        values = propose(spaces, study.trials(), direction="minimize", seed=seed)
        assert values == propose(spaces, study.trials(), direction="minimize", seed=seed)
        value = None if number in lost else (float(values["a.x"]) - 3) ** 2
        study.add(spaces, values, value=value, facts={"reason": "x" * 5000})
        tried.append(values)
    return tried


def test_values_are_reproduced_and_stored_with_their_types(tmp_path):
    odd = tmp_path / "we{i}rd ?#%.sqlite3"
    tried = searched(odd, 14, lost=(2, 5))
    assert tried == searched(tmp_path / "again.sqlite3", 14, lost=(2, 5))
    assert tried != searched(tmp_path / "other.sqlite3", 14, seed=4, lost=(2, 5))
    stored = [tried_values(SPACES, trial) for trial in StudyFile(odd, "minimize").trials()]
    assert [[(type(v), v) for v in values.values()] for values in stored] == [
        [(type(v), v) for v in values.values()] for values in tried
    ]
    assert {repr(values["b.c"]) for values in tried} == {"True", "1", "1.0", "'one'", "[1, 2]"}
    assert all(1 <= values["a.x"] <= 8 and values["a.n"] in range(10, 61, 5) for values in tried)


def imagined(trials, objective):
    """Values of a search on nothing but an equation, which gives None where a trial fails."""
    import optuna

    spaces, finished = SPACES[:1], []
    for _ in range(trials):
        values = propose(spaces, finished, direction="minimize", seed=3)
        value = objective(values["a.x"])
        states = optuna.trial.TrialState
        finished.append(
            optuna.trial.create_trial(
                state=states.FAIL if value is None else states.COMPLETE,
                value=value,
                params=values,
                distributions={"a.x": distribution(spaces[0])},
            )
        )
    return [trial.params["a.x"] for trial in finished]


def test_the_sampler_goes_where_values_are_good():
    tried = imagined(40, lambda x: (x - 3) ** 2)
    late, early = (sum(abs(x - 3) < 0.4 for x in part) for part in (tried[-10:], tried[:10]))
    assert late > early and min((x - 3) ** 2 for x in tried) < 1e-3


def test_the_sampler_leaves_where_trials_fail():
    tried = imagined(30, lambda x: None if x > 2 else 1.0)
    assert sum(x > 2 for x in tried[:10]) > 5 and sum(x > 2 for x in tried[-10:]) < 5


@pytest.mark.parametrize("trials", [6, 8])
def test_equal_values_come_again_only_when_all_were_tried(tmp_path, trials):
    spaces = (Space("a.x", "", "int", 1, 3), Space("b.c", "", "choice", choices=("u", "v")))
    tried = searched(tmp_path / "study.sqlite3", trials, spaces=spaces)
    assert len({tuple(values.values()) for values in tried[:6]}) == 6


def test_optuna_reads_the_study(tmp_path):
    import optuna

    searched(tmp_path / "study.sqlite3", 3, lost=(1,))
    study = optuna.load_study(study_name=None, storage=f"sqlite:///{tmp_path}/study.sqlite3")
    assert [trial.state.name for trial in study.trials] == ["COMPLETE", "FAIL", "COMPLETE"]
    assert study.direction.name == "MINIMIZE" and study.trials[1].user_attrs["reason"] == "x" * 5000
