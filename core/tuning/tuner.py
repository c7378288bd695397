"""Carries a search out: the trainings that all trials share, then trial after trial, each a run of its own."""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from ..chain import Chain, write_value
from ..context import choose_device
from ..dataset import Dataset
from ..durable import read_json, write_text
from ..errors import ConfigError, DataError, PluginFailure, StoreError
from ..manifest import canonical_json, data_facts, machine_facts, package_versions
from ..plan import check_needs_no_data
from ..recipe import Recipe
from ..registry import Registry, default_registry
from ..run import Run
from ..runner import check_workers, observed, real_data, rehearse
from ..store import RunStore
from .objectives import Found, Surroundings
from .plan import changed_search, obstacle
from .results import Places, Tuning
from .sampling import StudyFile, import_optuna, propose
from .search import Search, plan_search

FORMAT = 1
NOTHING_KEPT = "no case was accepted"
PICTURE_EVERY = 60.0
"""Seconds after which the picture is drawn anew while trials go on."""


def tune(
    recipe: Recipe | Chain,
    search: Sequence[str],
    metric: str,
    *,
    output: str | Path,
    data: str | Dataset | None = None,
    trials: int = 20,
    count: int | None = None,
    min_kept: int = 1,
    direction: str | None = None,
    split: str = "val",
    resume: bool = False,
    keep_going: bool = False,
    device: str = "auto",
    workers: int = 1,
    observers: Sequence[object] = (),
    registry: Registry | None = None,
) -> Tuning:
    """Search the values of a recipe for those with the best metric, into the folder ``output``; return the search.

    Each trial is a run in ``output/trials``; trainings that no searched value shapes are done once. No trial sees an
    image of the test split. All trials have the recipe's seed, so their cases start from the same noise.

    Args:
        search: ``PLACE.key=LOW..HIGH``, ``LOW..HIGH:log``, ``LOW..HIGH:step=N`` or ``a|b|c``; PLACE is a stage or a
            training.
        metric: a metric as ``name`` or ``name(key=value)``, ``score:NAME`` (mean over accepted cases), ``kept`` (share
            of accepted cases), or ``TRAINING.val_NAME`` (best value of a validation curve).
        data: data specification or dataset; replaces the recipe's own.
        trials: number of trials; a finished search goes on with more.
        count: cases of a trial; by default the recipe's own number.
        min_kept: accepted cases below which a trial fails.
        direction: ``minimize`` or ``maximize``, where the metric does not tell.
        split: real split that metrics compare with, ``val`` or ``train``.
        resume: go on with a search that was interrupted; ends with the same trials as an uninterrupted one.
        keep_going: count a trial in which a plugin fails as failed, too, instead of stopping.
        device, workers, observers: see :meth:`lesionforge.Recipe.run`.

    Raises:
        ConfigError: the search is not possible as it is written.
        StoreError: ``output`` is in use, holds another search, or cannot be written.
        PluginFailure: a plugin raised; the search can be resumed.
    """
    found, given = registry or default_registry(), data if isinstance(data, Dataset) else None
    planned = plan_search(
        recipe,
        search,
        metric,
        trials=trials,
        count=count,
        min_kept=min_kept,
        direction=direction,
        split=split,
        data=data if isinstance(data, str) else None,
        registry=found,
    )
    return carry_out(
        planned,
        output=output,
        data=given,
        resume=resume,
        keep_going=keep_going,
        device=device,
        workers=workers,
        observers=observers,
        registry=registry,
    )


def carry_out(
    search: Search,
    *,
    output: str | Path,
    data: Dataset | None = None,
    resume: bool = False,
    keep_going: bool = False,
    device: str = "auto",
    workers: int = 1,
    observers: Sequence[object] = (),
    registry: Registry | None = None,
) -> Tuning:
    """Carry a planned search out, see :func:`tune`."""
    import_optuna()
    check_workers(workers, registry)
    places, known = Places(Path(output)), registry or default_registry()
    _check_free(places, resume=resume)
    real = _without_test(real_data(search.recipe, data, known))
    with _same_threads(places), observed(known, observers):
        work = _Work(search, real, places, str(choose_device(device)), workers, keep_going, registry)
        work.check()
        with RunStore(places.root).locked():
            work.begin(resume=resume)
            work.train()
            work.try_all()
    return Tuning(places.root)


def _check_free(places: Places, *, resume: bool) -> None:
    """Raise StoreError where a search is in ``places`` that is not to be resumed, or anything else."""
    reason = obstacle(places, resume=resume)
    if reason:
        raise StoreError(reason)


@dataclass(frozen=True)
class _Work:
    """A search in progress: what is done in which order."""

    search: Search
    real: Dataset | None
    places: Places
    device: str
    workers: int
    keep_going: bool
    given_registry: Registry | None

    @property
    def _registry(self) -> Registry:
        return self.given_registry or default_registry()

    @property
    def _split(self) -> Dataset | None:
        """The real split that metrics compare with; raises an error where it is needed and not there."""
        if not self.search.objective.needs_real:
            return None
        if self.real is None:
            text = self.search.objective.text
            raise ConfigError(f"--metric {text} needs real data; name some, for example --data folder:PATH")
        return self.real.split(self.search.split)

    @property
    def _surroundings(self) -> Surroundings:
        registry = self._registry

        def progress(name: str, done: int, total: int) -> None:
            registry.observers.stage_progress(stage=f"metric {name}", done=done, total=total, metrics={})

        seed = self.search.recipe.seed
        return Surroundings(self._split, self.places.trained, self.device, seed, self.given_registry, progress)

    def check(self) -> None:
        """Raise an error where it is known before any work that no trial can be measured."""
        whole = self.search.whole_recipe().resolved(self._registry)
        if self.real is None:
            check_needs_no_data(whole, self._registry)
        if not self.search.objective.trainings:
            self._check_measurable()
        if self.search.shared and not self.places.plan.exists():
            rehearse(whole, torch.device(self.device), self._registry)

    def _check_measurable(self) -> None:
        reason = self.search.objective.refusal(self._surroundings, self.search.count)
        if reason:
            raise ConfigError(f"--metric {self.search.objective.text}: {reason}")

    def begin(self, *, resume: bool) -> None:
        """Write down what the search is, or check that the one that is there is this very one."""
        _check_free(self.places, resume=resume)
        facts = {
            "format": FORMAT,
            **self.search.as_dict(),
            "data": data_facts(self._split or self.real),
            "machine": machine_facts(torch.device(self.device), self._registry),
            "versions": package_versions("optuna"),
        }
        if self.places.plan.exists():
            reason = changed_search(read_json(self.places.plan), facts, self.places.root)
            if reason:
                raise StoreError(reason)
        write_text(self.places.plan, canonical_json({**facts, "trials": self.search.trials}))

    def train(self) -> None:
        """Do the trainings that all trials share."""
        if not self.search.shared:
            return
        self._run(self.search.shared_recipe(), self.places.shared)
        if self.search.objective.trainings:
            self._check_measurable()

    def try_all(self) -> None:
        """Do all trials that are missing."""
        search, places = self.search, self.places
        study, drawn = StudyFile(places.study, search.objective.direction), time.monotonic()
        observers = self._registry.observers
        while len(finished := study.trials()) < search.trials:
            number = len(finished)
            seed = search.recipe.seed
            values = propose(search.spaces, finished, direction=search.objective.direction, seed=seed)
            observers.trial_started(number=number, trials=search.trials, values=values)
            value, facts = self._try(number, values)
            study.add(search.spaces, values, value=value, facts=facts)
            told = Tuning(places.root)
            told.write_tables()
            best = told.best is not None and told.best.number == number
            reason = facts.get("reason")
            observers.trial_done(number=number, trials=search.trials, value=value, reason=reason, best=best)
            if time.monotonic() - drawn > PICTURE_EVERY:
                told.write_picture()
                drawn = time.monotonic()
        told = Tuning(places.root)
        told.write_tables()
        told.write_picture()

    def _try(self, number: int, values: dict[str, Any]) -> tuple[float | None, dict[str, Any]]:
        """Return a trial's value, None where it failed, and what else is known of it."""
        facts: dict[str, Any] = {}
        try:
            run = self._made(values, number)
            summary = run.summary()
            if self.search.objective.needs_cases:
                facts |= {"cases": summary["cases"], "kept": summary["kept"]}
            found = self._measured(run, summary)
        except DataError as error:
            return None, {**facts, "reason": str(error)}
        except PluginFailure as error:
            if not self.keep_going:
                error.add_note(f"trial {number} has {_in_words(values)}")
                raise
            return None, {**facts, "reason": str(error)}
        return found.value, {**facts, "low": found.low, "high": found.high, "measured": found.name}

    def _made(self, values: dict[str, Any], number: int) -> Run:
        """Return the run of a trial; raises DataError where plugins do not take these values together."""
        try:
            return self._run(self.search.trial_recipe(values, self.places.trained), self.places.trial(number))
        except ConfigError as error:
            raise DataError(str(error)) from error

    def _measured(self, run: Run, summary: Mapping[str, Any]) -> Found:
        """Return what a run's objective is; raises DataError where it has none, ConfigError where no run could."""
        if self.search.objective.needs_cases and summary["kept"] < self.search.min_kept:
            reasons = ", ".join(f"{reason} ({count})" for reason, count in summary["rejected"].items())
            few = f"only {summary['kept']} of {summary['cases']} cases were accepted"
            raise DataError(f"{few if summary['kept'] else NOTHING_KEPT}; rejected by {reasons}")
        found = self.search.objective.measure(run, self._surroundings)
        if not math.isfinite(found.value):
            raise DataError(f"{found.name} is {found.value}")
        return found

    def _run(self, recipe: Recipe, output: Path) -> Run:
        return recipe.run(
            output=output,
            data=self.real,
            resume=True,
            device=self.device,
            workers=self.workers,
            report=False,
            registry=self.given_registry,
        )


def _without_test(real: Dataset | None) -> Dataset | None:
    """Return the real data without the test split, which a search must not see."""
    return None if real is None else real.where(lambda record: record.split in ("train", "val"))


def _in_words(values: Mapping[str, Any]) -> str:
    return ", ".join(f"{path}={write_value(value)}" for path, value in values.items())


@contextmanager
def _same_threads(places: Places) -> Iterator[None]:
    """Compute the block with as many threads as the search began with, since their number can change last bits."""
    threads = torch.get_num_threads()
    if places.plan.is_file():
        torch.set_num_threads(Tuning(places.root).plan["machine"]["threads"])
    try:
        yield
    finally:
        torch.set_num_threads(threads)
