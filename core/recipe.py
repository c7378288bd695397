"""Recipes: real data, training jobs and a chain of stages in one TOML file; and their plan before anything runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from .chain import Chain, StageSpec, write_key, write_value
from .config import build_config
from .errors import ConfigError, first_line
from .recipe_file import (
    DataSettings,
    RecipeFile,
    SynthesisSettings,
    read_call,
    used_plugin,
    written_call,
    written_values,
)
from .registry import Registry, default_registry

if TYPE_CHECKING:
    from .dataset import Dataset
    from .run import Run

JOB_REFERENCE = "train:"
JOB_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*", re.IGNORECASE)
DATA_KINDS = ("real", "synthetic")


@dataclass(frozen=True)
class Synthesis:
    """A chain with its settings, see :class:`SynthesisSettings`; raises ConfigError where one is wrong."""

    chain: Chain
    count: int = 64
    batch_size: int = 16
    shard_size: int = 64
    precision: str = "auto"

    def __post_init__(self) -> None:
        for key, value in build_config(SynthesisSettings, self.settings(), where="synthesis").model_dump().items():
            object.__setattr__(self, key, value)

    def settings(self) -> dict[str, Any]:
        """Return the settings by name, as they stand in [synthesis]."""
        return {key: getattr(self, key) for key in SynthesisSettings.model_fields}


@dataclass(frozen=True)
class Job:
    """One training: the trainer's plugin name, what it trains on (real, synthetic or both), and given values."""

    name: str
    trainer: str
    on: tuple[str, ...] = ("real",)
    values: Mapping[str, Any] = field(default_factory=dict)

    @property
    def after_synthesis(self) -> bool:
        """True for a job that needs the chain's accepted cases."""
        return "synthetic" in self.on


@dataclass(frozen=True)
class Recipe:
    """Everything that a run needs: seed, data, training jobs, the chain with its settings, and metrics.

    Jobs that train on real data alone run first, then the chain, then jobs that train on synthetic cases, then the
    metrics. A stage, job or metric refers to the checkpoint of job NAME as ``train:NAME``.

    Attributes:
        metrics: what the report tells of the likeness of accepted cases and real images, see :mod:`.likeness`.
        precision: arithmetic of the trainings of a recipe without a chain; a chain's own governs the trainings too.

    Raises:
        ConfigError: name, seed or precision is not allowed.
    """

    name: str = "recipe"
    description: str = ""
    seed: int = 0
    data: DataSettings = field(default_factory=lambda: DataSettings.model_validate({}))
    jobs: tuple[Job, ...] = ()
    synthesis: Synthesis | None = None
    precision: str = "auto"
    metrics: tuple[StageSpec, ...] = ()

    def __post_init__(self) -> None:
        given = {key: getattr(self, key) for key in ("name", "description", "seed", "precision")}
        object.__setattr__(self, "seed", build_config(RecipeFile, given, where="recipe").seed)

    @property
    def training_precision(self) -> str:
        """Arithmetic of networks in trainings: ``auto``, ``fp32`` or ``bf16``."""
        return self.synthesis.precision if self.synthesis else self.precision

    @classmethod
    def load(cls, path: str | Path) -> Recipe:
        """Read a recipe file.

        Raises:
            ConfigError: it is missing, no TOML, or has unknown or impossible entries.
        """
        path = Path(path)
        try:
            text = path.read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"recipe {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return cls.from_toml(text, where=f"recipe {path}")

    @classmethod
    def from_toml(cls, text: str, *, where: str = "recipe") -> Recipe:
        """Read a recipe from TOML text, see :meth:`load`."""
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:  # Python reads no integer of more than 4,300 digits
            raise ConfigError(f"{where} is no valid TOML: {first_line(error)}") from None
        if "study" in table:
            raise ConfigError(f"{where} is a study; carry it out by lesionforge study")
        read = build_config(RecipeFile, table, where=where)
        jobs = tuple(_read_job(name, values, where) for name, values in read.train.items())
        synthesis = None
        if read.stage:
            chain = Chain(tuple(read_call("stage", *entry, where) for entry in enumerate(read.stage)))
            synthesis = Synthesis(chain, **(read.synthesis or SynthesisSettings.model_validate({})).model_dump())
        elif read.synthesis:
            raise ConfigError(f"{where}: [synthesis] is given but no [[stage]]")
        metrics = tuple(read_call("metric", *entry, where) for entry in enumerate(read.metric))
        recipe = cls(read.name, read.description, read.seed, read.data, jobs, synthesis, read.precision, metrics)
        recipe.check(where)
        return recipe

    def to_toml(self) -> str:
        """Return the recipe as TOML text, from which :meth:`from_toml` makes an equal recipe."""
        lines = [f"name = {write_value(self.name)}", f"description = {write_value(self.description)}"]
        lines += [f"seed = {self.seed}"]
        lines += [f"precision = {write_value(self.precision)}"] if self.precision != "auto" else []
        lines += ["", "[data]"]
        lines += written_values(self.data.model_dump())
        for job in self.jobs:
            lines += ["", f"[train.{write_key(job.name)}]", f"use = {write_value(job.trainer)}"]
            lines += [f"on = {write_value(list(job.on))}", *written_values(job.values)]
        if self.synthesis:
            lines += ["", "[synthesis]", *written_values(self.synthesis.settings())]
            for stage in self.synthesis.chain.stages:
                lines += written_call("stage", stage)
        for metric in self.metrics:
            lines += written_call("metric", metric)
        return "\n".join(lines) + "\n"

    def check(self, where: str = "recipe") -> None:
        """Raise ConfigError, which begins with ``where``, where parts of the recipe do not fit together."""
        stages = self.synthesis.chain.keys if self.synthesis else ()
        if self.synthesis and self.precision != "auto":
            raise ConfigError(f"{where}: precision belongs into [synthesis], where it governs the trainings too")
        if self.metrics and not self.synthesis:
            raise ConfigError(f"{where}: [[metric]] measures synthetic cases but there is no [[stage]]")
        for position, job in enumerate(self.jobs):
            if not JOB_NAME.fullmatch(job.name) or job.name in ("data", "synthesis"):
                allowed = "letters, digits, '-', '_', '+' and '.'"
                raise ConfigError(f"{where}: [train.{job.name}]: the name becomes a folder; use {allowed}")
            if job.name in (other.name for other in self.jobs[:position]):
                raise ConfigError(f"{where}: {job.name!r} names two trainings; rename one")
            if job.name in stages:
                raise ConfigError(f"{where}: {job.name!r} names both a stage and a training; rename the training")
            if job.after_synthesis and not self.synthesis:
                raise ConfigError(f"{where}: training {job.name!r} is on synthetic data but there is no [[stage]]")

    def in_order(self) -> tuple[Job, ...]:
        """Return the jobs in the order they run: those that need synthetic cases last."""
        return tuple(sorted(self.jobs, key=lambda job: job.after_synthesis))

    def with_value(self, path: str, value: Any) -> Recipe:
        """Return the recipe with one value replaced, as ``--set`` does.

        ``path`` is ``stage.key``, ``training.key``, ``metric.key``, ``data.key``, ``synthesis.key``, ``seed``, ``name``
        or, without a chain, ``precision``. A second metric of one plugin is called ``name-2``, as stages are.
        """
        place, _, key = path.rpartition(".")
        if not place and key in ("seed", "name", "precision"):
            checked = build_config(RecipeFile, {key: value}, where=f"--set {path}")
            changed = replace(self, **{key: getattr(checked, key)})
            changed.check(f"--set {path}")
            return changed
        if place == "data":
            values = {**self.data.model_dump(), key: value}
            return replace(self, data=build_config(DataSettings, values, where=f"--set {path}"))
        if place == "synthesis" and self.synthesis:
            settings = {**self.synthesis.settings(), key: value}
            checked = build_config(SynthesisSettings, settings, where=f"--set {path}")
            return replace(self, synthesis=Synthesis(self.synthesis.chain, **checked.model_dump()))
        if self.synthesis and place in self.synthesis.chain.keys:
            chain = self.synthesis.chain.with_value(place, key, value)
            return replace(self, synthesis=replace(self.synthesis, chain=chain))
        if place in {job.name for job in self.jobs}:
            jobs = (replace(j, values={**j.values, key: value}) if j.name == place else j for j in self.jobs)
            return replace(self, jobs=tuple(jobs))
        metrics = Chain(self.metrics)
        if place in metrics.keys:
            return replace(self, metrics=metrics.with_value(place, key, value).stages)
        places = ["data", *(["synthesis", *self.synthesis.chain.keys] if self.synthesis else [])]
        places += [*(job.name for job in self.jobs), *metrics.keys]
        raise ConfigError(f"--set {path}: there is nothing called {place or key!r}; there are {', '.join(places)}")

    def with_values(self, values: Mapping[str, Any]) -> Recipe:
        """Return the recipe with several values replaced, by path, see :meth:`with_value`."""
        recipe = self
        for path, value in values.items():
            recipe = recipe.with_value(path, value)
        return recipe

    def resolved(self, registry: Registry | None = None) -> Recipe:
        """Return the recipe with every plugin's defaults written out.

        Raises:
            PluginError: a plugin or extractor is unknown or broken.
            ConfigError: a value is not allowed, or would be lost in writing, or ``train:NAME`` names no earlier job.
            CheckpointError: a checkpoint that can only be a local path does not exist.
        """
        from .resolution import resolve_recipe

        return resolve_recipe(self, registry or default_registry())

    def run(
        self,
        *,
        output: str | Path,
        data: str | Dataset | None = None,
        resume: bool = False,
        device: str = "auto",
        workers: int = 1,
        observers: Sequence[object] = (),
        report: bool = True,
        registry: Registry | None = None,
    ) -> Run:
        """Carry the recipe out in the run folder ``output`` and return the finished run.

        Args:
            data: data specification or dataset; replaces the recipe's own.
            resume: go on with a run that was interrupted; ends with the same bytes as an uninterrupted one.
            device: ``auto``, ``cpu``, ``cuda`` ...
            workers: processes that share the shards.
            observers: objects whose ``lesionforge.hookimpl`` methods follow the run.
            report: write ``report/index.html`` at the end.

        Raises:
            StoreError: ``output`` is in use, holds another run, or cannot be written.
            PluginFailure: a plugin raised; the run can be resumed.
        """
        from .runner import run_recipe

        return run_recipe(
            self,
            output=Path(output),
            data=data,
            resume=resume,
            device=device,
            workers=workers,
            observers=observers,
            report=report,
            registry=registry,
        )


def _read_job(name: str, values: Mapping[str, Any], where: str) -> Job:
    where = f"{where}: [train.{name}]"
    on = values.get("on", ["real"])
    if not isinstance(on, list) or not on or any(kind not in DATA_KINDS for kind in on):
        raise ConfigError(f'{where}: on = {on!r} must be a list of "real" and "synthetic"')
    rest = {key: value for key, value in values.items() if key not in ("use", "on")}
    return Job(name, used_plugin(values, where), tuple(dict.fromkeys(on)), rest)
