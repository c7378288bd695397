"""What Optuna does here: proposes the next values, and keeps the finished trials in SQLite."""

from __future__ import annotations

import sqlite3
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING, Any

from ..chain import write_value
from ..errors import PluginError, StoreError, first_line
from ..seeding import name_seed
from .spaces import Space

if TYPE_CHECKING:
    from optuna.distributions import BaseDistribution
    from optuna.study import Study
    from optuna.trial import FrozenTrial

STUDY = "lesionforge"
ATTEMPTS = 20
"""Proposals of values that were tried before, after which the first untried ones are taken."""


def import_optuna() -> ModuleType:
    """Return Optuna; raises PluginError where it is not installed."""
    try:
        import optuna
    except ImportError as error:
        raise PluginError(f'tuning needs the package optuna ({error}); pip install "lesionforge[tune]"') from error
    return optuna


def propose(spaces: Sequence[Space], finished: Sequence[FrozenTrial], *, direction: str, seed: int) -> dict[str, Any]:
    """Return the values of trial number ``len(finished)``: a pure function of the arguments.

    Each trial gets a sampler of its own (TPE, Bergstra et al. 2011), seeded by ``seed`` and the trial's number, so that
    no state has to survive a kill. Failed trials count as worse than all others. Equal values give an equal run, so
    values that were tried are proposed again only where the spaces hold no others.
    """
    with _quiet_optuna() as optuna:
        pruned = optuna.trial.TrialState.PRUNED
        known = [_rebuilt(trial, trial.state if trial.value is not None else pruned) for trial in finished]
        distributions = {space.path: distribution(space) for space in spaces}
        tried = {_key(trial.params) for trial in finished}
        params: dict[str, Any] = {}
        for attempt in range(ATTEMPTS):
            drawn = name_seed("tuning", str(seed), str(len(finished)), str(attempt)) % 2**32
            sampler = optuna.samplers.TPESampler(seed=drawn, multivariate=True, constant_liar=False)
            study = optuna.create_study(direction=direction, sampler=sampler)
            study.add_trials(known)
            params = study.ask(distributions).params
            if _key(params) not in tried:
                break
        else:
            params = next((left for left in _combinations(spaces) if _key(left) not in tried), params)
    return {space.path: _value_of(space, params[space.path]) for space in spaces}


def distribution(space: Space) -> BaseDistribution:
    """Return the space as Optuna knows it; choices that it has no type for are written as TOML."""
    distributions = import_optuna().distributions
    if space.kind == "choice":
        return distributions.CategoricalDistribution(_labels(space))
    if space.kind == "float":
        return distributions.FloatDistribution(space.low, space.high, log=space.log)
    return distributions.IntDistribution(int(space.low), int(space.high), log=space.log, step=space.step)


class StudyFile:
    """The study of a search: one SQLite file that Optuna and its dashboard read, with finished trials alone."""

    def __init__(self, path: Path, direction: str) -> None:
        """Open the study at ``path``, which is made where there is none; raises StoreError where that fails."""
        self._path = path
        with _quiet_optuna() as optuna, self._worded():
            # A connection of our own, since Optuna reads braces and question marks of a path as more than a path.
            pool = import_sqlalchemy_pool()
            options = {"creator": lambda: sqlite3.connect(path), "poolclass": pool}
            self._storage = optuna.storages.RDBStorage("sqlite://", engine_kwargs=options)
            self._study: Study = optuna.create_study(
                study_name=STUDY, storage=self._storage, direction=direction, load_if_exists=True
            )

    def trials(self) -> list[FrozenTrial]:
        """Return all trials by their number."""
        with self._worded():
            return self._study.get_trials(deepcopy=False)

    def add(
        self, spaces: Sequence[Space], values: Mapping[str, Any], *, value: float | None, facts: Mapping[str, Any]
    ) -> None:
        """Add one finished trial, failed where ``value`` is None, in one transaction."""
        with _quiet_optuna() as optuna, self._worded():
            states = optuna.trial.TrialState
            self._study.add_trial(
                optuna.trial.create_trial(
                    state=states.FAIL if value is None else states.COMPLETE,
                    value=value,
                    params={space.path: _param_of(space, values[space.path]) for space in spaces},
                    distributions={space.path: distribution(space) for space in spaces},
                    user_attrs=dict(facts),
                )
            )

    @contextmanager
    def _worded(self) -> Iterator[None]:
        """Turn what the database says into a StoreError that names the file."""
        try:
            yield
        except Exception as error:  # Optuna lets through what its layers raise: sqlalchemy's, sqlite3's, its own
            raise StoreError(f"study {self._path} cannot be used: {first_line(error)}") from error


def import_sqlalchemy_pool() -> Any:
    """Return the pool that opens a connection anew each time, so that none outlives its use."""
    from sqlalchemy.pool import NullPool

    return NullPool


def tried_values(spaces: Sequence[Space], trial: FrozenTrial) -> dict[str, Any]:
    """Return the values of a trial as the recipe has them."""
    return {space.path: _value_of(space, trial.params[space.path]) for space in spaces}


@contextmanager
def _quiet_optuna() -> Iterator[Any]:
    """Yield Optuna, which says nothing but warnings meanwhile."""
    optuna = import_optuna()
    level = optuna.logging.get_verbosity()
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        yield optuna
    finally:
        optuna.logging.set_verbosity(level)


def _rebuilt(trial: FrozenTrial, state: Any) -> FrozenTrial:
    optuna = import_optuna()
    return optuna.trial.create_trial(
        state=state, value=trial.value, params=trial.params, distributions=trial.distributions
    )


def _combinations(spaces: Sequence[Space]) -> Iterator[dict[str, Any]]:
    """Yield all values that can be counted; none where one space cannot."""
    grids = [space.grid for space in spaces]
    for values in product(*[grid for grid in grids if grid is not None]) if None not in grids else ():
        yield {space.path: _param_of(space, value) for space, value in zip(spaces, values, strict=True)}


def _key(params: Mapping[str, Any]) -> tuple[tuple[str, str], ...]:
    return tuple(sorted((name, repr(value)) for name, value in params.items()))


def _labels(space: Space) -> list[Any]:
    """Return the choices as Optuna takes them: texts, numbers or truth values of one type, since 1 equals true."""
    kinds = {type(choice) for choice in space.choices}
    plain = len(kinds) == 1 and kinds <= {bool, int, float, str}
    return list(space.choices) if plain else [write_value(choice) for choice in space.choices]


def _param_of(space: Space, value: Any) -> Any:
    written = write_value(value)
    if space.kind != "choice":
        return value
    return next(
        label for label, choice in zip(_labels(space), space.choices, strict=True) if write_value(choice) == written
    )


def _value_of(space: Space, param: Any) -> Any:
    return space.choices[_labels(space).index(param)] if space.kind == "choice" else param
