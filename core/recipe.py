"""Recipes: real data, training jobs and a chain of stages in one TOML file; and their plan before anything runs."""

from __future__ import annotations

import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from pydantic import Field

from .chain import Chain, StageSpec, write_key, write_value
from .config import PluginConfig, build_config, checkpoint_fields
from .errors import ConfigError
from .registry import Registry, default_registry
from .seeding import SEED_LIMIT

if TYPE_CHECKING:
    from .dataset import Dataset
    from .run import Run

JOB_REFERENCE = "train:"
JOB_NAME = re.compile(r"[a-z0-9][a-z0-9_.+-]*", re.IGNORECASE)
DATA_KINDS = ("real", "synthetic")


class DataSettings(PluginConfig):
    """Which real data a recipe works on."""

    source: str | None = Field(None, description="data specification such as isic2018:PATH; --data replaces it")
    size: int | None = Field(None, ge=8, le=4096, description="edge in pixels that images are resized to")
    limit: int | None = Field(None, ge=1, description="use only the first cases of the training split")


class SynthesisSettings(PluginConfig):
    """How the chain is run."""

    count: int = Field(64, ge=1, description="number of cases to make")
    batch_size: int = Field(16, ge=1, description="cases that networks see at once; part of a case's identity")
    shard_size: int = Field(64, ge=1, description="cases committed to disk at once")
    precision: Literal["auto", "fp32", "bf16"] = Field("auto", description="arithmetic of networks in the chain")


@dataclass(frozen=True)
class Synthesis:
    """A chain with the settings it runs under, see :class:`SynthesisSettings`."""

    chain: Chain
    count: int = 64
    batch_size: int = 16
    shard_size: int = 64
    precision: str = "auto"


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


class _RecipeFile(PluginConfig):
    """The layout of a recipe file."""

    name: str = "recipe"
    description: str = ""
    seed: int = Field(0, ge=0, lt=SEED_LIMIT)
    data: DataSettings = Field(default_factory=lambda: DataSettings.model_validate({}))
    synthesis: SynthesisSettings | None = None
    train: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stage: list[dict[str, Any]] = Field(default_factory=list)


@dataclass(frozen=True)
class Recipe:
    """Everything that a run needs: seed, data, training jobs, and the chain with its settings.

    Jobs that train on real data alone run first, then the chain, then jobs that train on synthetic cases. A stage or
    job refers to the checkpoint of job NAME as ``train:NAME``.
    """

    name: str = "recipe"
    description: str = ""
    seed: int = 0
    data: DataSettings = field(default_factory=lambda: DataSettings.model_validate({}))
    jobs: tuple[Job, ...] = ()
    synthesis: Synthesis | None = None

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
        except tomllib.TOMLDecodeError as error:
            raise ConfigError(f"{where} is no valid TOML: {error}") from None
        read = build_config(_RecipeFile, table, where=where)
        jobs = tuple(_read_job(name, values, where) for name, values in read.train.items())
        synthesis = None
        if read.stage:
            chain = Chain(tuple(_read_stage(position, values, where) for position, values in enumerate(read.stage)))
            synthesis = Synthesis(chain, **(read.synthesis or SynthesisSettings.model_validate({})).model_dump())
        elif read.synthesis:
            raise ConfigError(f"{where}: [synthesis] is given but no [[stage]]")
        recipe = cls(read.name, read.description, read.seed, read.data, jobs, synthesis)
        recipe._check_names(where)
        return recipe

    def to_toml(self) -> str:
        """Return the recipe as TOML text, from which :meth:`from_toml` makes an equal recipe."""
        lines = [f"name = {write_value(self.name)}", f"description = {write_value(self.description)}"]
        lines += [f"seed = {self.seed}", "", "[data]"]
        lines += [f"{key} = {write_value(value)}" for key, value in self.data.model_dump(exclude_none=True).items()]
        for job in self.jobs:
            lines += ["", f"[train.{write_key(job.name)}]", f"use = {write_value(job.trainer)}"]
            lines += [f"on = {write_value(list(job.on))}", *_lines(job.values)]
        if self.synthesis:
            settings = {key: getattr(self.synthesis, key) for key in SynthesisSettings.model_fields}
            lines += ["", "[synthesis]", *_lines(settings)]
            for stage in self.synthesis.chain.stages:
                lines += ["", "[[stage]]", f"use = {write_value(stage.plugin)}", *_lines(stage.values)]
        return "\n".join(lines) + "\n"

    def _check_names(self, where: str) -> None:
        stages = self.synthesis.chain.keys if self.synthesis else ()
        for job in self.jobs:
            if job.name in stages:
                raise ConfigError(f"{where}: {job.name!r} names both a stage and a training; rename the training")
            if job.after_synthesis and not self.synthesis:
                raise ConfigError(f"{where}: training {job.name!r} is on synthetic data but there is no [[stage]]")

    def in_order(self) -> tuple[Job, ...]:
        """Return the jobs in the order they run: those that need synthetic cases last."""
        return tuple(sorted(self.jobs, key=lambda job: job.after_synthesis))

    def with_value(self, path: str, value: Any) -> Recipe:
        """Return the recipe with one value replaced, as ``--set`` does.

        ``path`` is ``stage.key``, ``training.key``, ``data.key``, ``synthesis.key``, ``seed`` or ``name``.
        """
        place, _, key = path.rpartition(".")
        if not place and key in ("seed", "name"):
            return Recipe.from_toml(replace(self, **{key: value}).to_toml(), where=f"--set {path}")
        if place == "data":
            values = {**self.data.model_dump(), key: value}
            return replace(self, data=build_config(DataSettings, values, where=f"--set {path}"))
        if place == "synthesis" and self.synthesis:
            settings = {name: getattr(self.synthesis, name) for name in SynthesisSettings.model_fields}
            checked = build_config(SynthesisSettings, {**settings, key: value}, where=f"--set {path}")
            return replace(self, synthesis=Synthesis(self.synthesis.chain, **checked.model_dump()))
        if self.synthesis and place in self.synthesis.chain.keys:
            chain = self.synthesis.chain.with_value(place, key, value)
            return replace(self, synthesis=replace(self.synthesis, chain=chain))
        if place in {job.name for job in self.jobs}:
            jobs = (replace(j, values={**j.values, key: value}) if j.name == place else j for j in self.jobs)
            return replace(self, jobs=tuple(jobs))
        places = ["data", *(["synthesis", *self.synthesis.chain.keys] if self.synthesis else [])]
        places += [job.name for job in self.jobs]
        raise ConfigError(f"--set {path}: there is nothing called {place or key!r}; there are {', '.join(places)}")

    def resolved(self, registry: Registry | None = None) -> Recipe:
        """Return the recipe with every plugin's defaults written out.

        Raises:
            PluginError: a plugin is unknown or broken.
            ConfigError: a value is not allowed, or ``train:NAME`` names no earlier job.
        """
        registry = registry or default_registry()
        jobs = []
        for job in self.jobs:
            model = registry.find(job.trainer, "trainer").plugin.Config
            config = build_config(model, job.values, where=f"training {job.name}")
            earlier = {other.name for other in self.in_order()[: self.in_order().index(job)]}
            _check_references(config, earlier, where=f"training {job.name}")
            jobs.append(replace(job, values=config.model_dump(mode="json", exclude_none=True)))
        synthesis = self.synthesis
        if synthesis:
            configs = synthesis.chain.configs(registry)
            trained = {job.name for job in self.jobs if not job.after_synthesis}
            for key, config in configs.items():
                _check_references(config, trained, where=f"stage {key}")
            stages = tuple(
                StageSpec(stage.plugin, config.model_dump(mode="json", exclude_none=True))
                for stage, config in zip(synthesis.chain.stages, configs.values(), strict=True)
            )
            synthesis = replace(synthesis, chain=Chain(stages))
        return replace(self, jobs=tuple(jobs), synthesis=synthesis)

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


def _lines(values: Mapping[str, Any]) -> list[str]:
    return [f"{write_key(key)} = {write_value(value)}" for key, value in values.items() if value is not None]


def _used_plugin(values: Mapping[str, Any], where: str) -> str:
    plugin = values.get("use")
    if not isinstance(plugin, str) or not plugin:
        raise ConfigError(f"{where}: key 'use' is required and names the plugin, for example use = \"ddpm\"")
    return plugin


def _read_job(name: str, values: Mapping[str, Any], where: str) -> Job:
    where = f"{where}: [train.{name}]"
    if not JOB_NAME.fullmatch(name) or name in ("data", "synthesis"):
        raise ConfigError(f"{where}: the name becomes a folder; use letters, digits, '-', '_', '+' and '.'")
    on = values.get("on", ["real"])
    if not isinstance(on, list) or not on or any(kind not in DATA_KINDS for kind in on):
        raise ConfigError(f'{where}: on = {on!r} must be a list of "real" and "synthetic"')
    rest = {key: value for key, value in values.items() if key not in ("use", "on")}
    return Job(name, _used_plugin(values, where), tuple(dict.fromkeys(on)), rest)


def _read_stage(position: int, values: Mapping[str, Any], where: str) -> StageSpec:
    plugin = _used_plugin(values, f"{where}: [[stage]] number {position + 1}")
    return StageSpec(plugin, {key: value for key, value in values.items() if key != "use"})


def _check_references(config: PluginConfig, known: set[str], *, where: str) -> None:
    for key in checkpoint_fields(type(config)):
        value = getattr(config, key)
        if value is not None and value.startswith(JOB_REFERENCE) and value.removeprefix(JOB_REFERENCE) not in known:
            listed = ", ".join(sorted(known)) or "none"
            raise ConfigError(f"{where}: {key} = {value!r} names no training that runs before it; there are {listed}")
