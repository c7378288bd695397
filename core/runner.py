"""Carries a recipe out: jobs on real data, the chain shard by shard, jobs on synthetic data, metrics, the report."""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

import torch

from .chain import Chain
from .context import choose_device, choose_precision
from .dataset import Dataset
from .errors import ConfigError, LesionforgeError
from .execution import fit_stages, set_up
from .jobs import JobRunner
from .likeness import measure_likeness
from .loading import load_dataset, with_source
from .manifest import FORMAT, canonical_json, data_facts, machine_facts, package_versions, stage_facts, text_hash
from .plan import check_needs_no_data
from .recipe import JOB_REFERENCE, Recipe
from .registry import Registry, default_registry
from .run import Run
from .shards import ShardMaker, missing_shards, open_recipe_stages, same_threads, share_shards, synthesis_of
from .splitting import grouped_split
from .store import RunStore

if TYPE_CHECKING:
    from .roles import Stage

DEFAULT_FRACTIONS = {"train": 0.7, "val": 0.1, "test": 0.2}


def run_recipe(
    recipe: Recipe,
    *,
    output: Path,
    data: str | Dataset | None,
    resume: bool,
    device: str,
    workers: int,
    observers: Sequence[object],
    report: bool,
    registry: Registry | None,
) -> Run:
    """Carry ``recipe`` out in ``output``, see :meth:`Recipe.run`."""
    check_workers(workers, registry)
    with _work(recipe, output, data, resume, device, observers, registry) as work:
        stages = work.prepare()
        work.synthesise(stages, workers)
        work.compare()
        work.measure()
        run = Run(output)
        if report:
            from .report import write_report

            write_report(run, real=work.real)
    return run


def prepare_run(
    recipe: Recipe, *, output: str | Path, data: str | Dataset | None = None, resume: bool = False, device: str = "auto"
) -> Run:
    """Do all that comes before the cases: trainings on real data, fits, manifest.

    Then any number of processes may call :func:`lesionforge.core.shards.make_shards`, and at the end
    ``recipe.run(resume=True)`` does what is left.
    """
    with _work(recipe, Path(output), data, resume, device, (), None) as work:
        work.prepare()
    return Run(output)


@contextmanager
def _work(
    recipe: Recipe,
    output: Path,
    data: str | Dataset | None,
    resume: bool,
    device: str,
    observers: Sequence[object],
    registry: Registry | None,
) -> Iterator[_Work]:
    """Resolve the recipe, hold the run folder, and keep a failure's traceback in the run's log."""
    registry = registry or default_registry()
    target = choose_device(device)
    recipe = with_source(recipe, data if isinstance(data, str) else None).resolved(registry)
    if recipe.synthesis:
        precision = choose_precision(recipe.synthesis.precision, target)
        recipe = replace(recipe, synthesis=replace(recipe.synthesis, precision=precision))
    real = real_data(recipe, data if isinstance(data, Dataset) else None, registry)
    if real is None:
        check_needs_no_data(recipe, registry)
    store = RunStore(output)
    with store.locked(), observed(registry, observers):
        store.create(recipe.to_toml(), resume=resume)
        try:
            with same_threads(store):
                yield _Work(recipe, real, store, target, registry)
        except LesionforgeError as error:
            if error.__cause__ is not None:
                text = "".join(traceback.format_exception(error))
                store.append_log({"event": "failure", "time": time.time(), "traceback": text})
            raise


@dataclass(frozen=True)
class _Work:
    """A run in progress: what is done in which order."""

    recipe: Recipe
    real: Dataset | None
    store: RunStore
    device: torch.device
    registry: Registry

    @property
    def _training(self) -> Dataset | None:
        return None if self.real is None else self.real.split("train")

    @property
    def _jobs(self) -> JobRunner:
        return JobRunner(self.store, self.recipe.seed, self.device, self.recipe.training_precision, self.registry)

    def prepare(self) -> dict[str, Stage]:
        """Train on real data, fit the stages, and write the manifest; return the stages if cases are missing."""
        if self.recipe.jobs and not self.store.manifest.exists():
            rehearse(self.recipe, self.device, self.registry)
        for job in self.recipe.in_order():
            if not job.after_synthesis:
                self._jobs.run(job, _needed(self.real, job.name), None)
        if not self.recipe.synthesis or (self.store.manifest.exists() and not self._missing()):
            return {}
        stages = open_recipe_stages(self.recipe, self.store, self.device, self.registry)
        fit_stages(stages, self._training, self.store.fitted)
        self.store.write_manifest(self._manifest(stages))
        return stages

    def synthesise(self, stages: dict[str, Stage], workers: int) -> None:
        """Make all missing shards with the prepared ``stages``, or in processes of their own."""
        missing = self._missing()
        if not self.recipe.synthesis or not missing:
            return
        cases, started = sum(map(len, missing)), time.time()
        observers = self.registry.observers
        observers.run_started(output=self.store.root, count=cases, stages=self.recipe.synthesis.chain.keys)
        if workers > 1 and len(missing) > 1:
            stages.clear()  # each worker loads its own
            share_shards(self.store.root, self.device, min(workers, len(missing)), self.registry)
        else:
            ShardMaker(self.recipe, self.store, stages, observers).make(missing)
        event = {"event": "chain", "start": started, "seconds": time.time() - started, "cases": cases}
        self.store.append_log(event)
        observers.run_done(output=self.store.root)

    def compare(self) -> None:
        """Train the jobs that need synthetic cases."""
        for job in self.recipe.in_order():
            if job.after_synthesis:
                self._jobs.run(job, _needed(self.real, job.name), Run(self.store.root).dataset())

    def measure(self) -> None:
        """Measure how alike accepted cases and real images are; last, so that nothing else waits for it."""
        if self.recipe.metrics and self.real is not None:
            measure_likeness(Run(self.store.root), self.real, device=self.device, registry=self.registry)

    def _missing(self) -> list[range]:
        return missing_shards(self.store, self.recipe.synthesis) if self.recipe.synthesis else []

    def _manifest(self, stages: Mapping[str, Stage]) -> str:
        synthesis = synthesis_of(self.recipe)
        facts = stage_facts(stages, synthesis.chain, self.store.fitted, self.registry)
        return canonical_json(
            {
                "format": FORMAT,
                "recipe": text_hash(self.recipe.to_toml()),
                "seed": self.recipe.seed,
                "batch_size": synthesis.batch_size,
                "precision": synthesis.precision,
                "stages": facts,
                "data": data_facts(self._training),
                "machine": machine_facts(self.device, self.registry),
                "versions": package_versions(*(stage["distribution"] for stage in facts)),
            }
        )


def check_workers(workers: int, registry: Registry | None) -> None:
    """Raise ConfigError where workers could not find the plugins of a ``registry`` of one's own."""
    if workers > 1 and registry is not None:
        raise ConfigError("several workers find plugins in what is installed; a registry of one's own needs workers=1")


def rehearse(recipe: Recipe, device: torch.device, registry: Registry) -> None:
    """Set up every stage that waits for no training, so that its mistakes show before hours of work."""
    for stage in recipe.synthesis.chain.stages if recipe.synthesis else ():
        if recipe.synthesis and not any(str(value).startswith(JOB_REFERENCE) for value in stage.values.values()):
            set_up(Chain((stage,)), device=device, precision=recipe.synthesis.precision, registry=registry)


def _needed(real: Dataset | None, job: str) -> Dataset:
    if real is None:
        raise ConfigError(f"training {job} needs real data; name some, for example --data isic2018:PATH")
    return real


def real_data(recipe: Recipe, given: Dataset | None, registry: Registry | None = None) -> Dataset | None:
    """Return the recipe's real data at its size with splits, or None where it names none.

    Data without splits are cut 70 / 10 / 20 by lesion group [ours]; ``limit`` shortens the training split.
    """
    if given is None and recipe.data.source is None:
        return None
    dataset = given if given is not None else load_dataset(str(recipe.data.source), registry=registry)
    if recipe.data.size is not None:
        dataset = dataset.resized(recipe.data.size)
    if not dataset.has_splits():
        dataset = grouped_split(dataset, DEFAULT_FRACTIONS)
    if recipe.data.limit is not None:
        chosen = set(dataset.split("train").ids[: recipe.data.limit])
        dataset = dataset.where(lambda record: record.split != "train" or record.image_id in chosen)
    return dataset


@contextmanager
def observed(registry: Registry, observers: Sequence[object]) -> Iterator[None]:
    """Let ``observers`` follow the block through their hook implementations."""
    for observer in observers:
        registry.hooks.register(observer)
    try:
        yield
    finally:
        for observer in observers:
            registry.hooks.unregister(observer)
