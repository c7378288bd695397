"""Study files: models, arms and synthetic sets in one TOML file."""

from __future__ import annotations

import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..chain import write_key, write_value
from ..config import PluginConfig, build_config
from ..errors import ConfigError, first_line
from ..recipe import JOB_REFERENCE, Job, Recipe
from ..recipe_file import DataSettings, used_plugin, written_values
from ..registry import Registry, default_registry
from .settings import ArmSettings, ExternalSet, StudyFile, StudySettings, SyntheticSet

if TYPE_CHECKING:
    from ..dataset import Dataset
    from .plan import StudyPlan
    from .results import StudyResults


@dataclass(frozen=True)
class Model:
    """What is trained in every arm: the trainer's plugin name and its values."""

    name: str
    trainer: str
    values: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Study:
    """Arms of training data, each with every model, number of real images, seed and fold, on one fixed test split.

    Raises:
        ConfigError: parts of the study do not fit together.
    """

    name: str = "study"
    description: str = ""
    settings: StudySettings = field(default_factory=lambda: StudySettings.model_validate({}))
    data: DataSettings = field(default_factory=lambda: DataSettings.model_validate({}))
    synthetic: Mapping[str, SyntheticSet] = field(default_factory=dict)
    models: tuple[Model, ...] = ()
    arms: tuple[ArmSettings, ...] = ()
    externals: tuple[ExternalSet, ...] = ()

    @classmethod
    def load(cls, path: str | Path) -> Study:
        """Read a study file.

        Raises:
            ConfigError: it is missing, no TOML, or has unknown or impossible entries.
        """
        try:
            text = Path(path).read_text(encoding="utf-8")
        except (OSError, UnicodeDecodeError) as error:
            raise ConfigError(f"study {path} cannot be read: {getattr(error, 'strerror', None) or error}") from None
        return cls.from_toml(text, where=f"study {path}")

    @classmethod
    def from_toml(cls, text: str, *, where: str = "study") -> Study:
        """Read a study from TOML text, see :meth:`load`."""
        try:
            table = tomllib.loads(text)
        except (ValueError, RecursionError) as error:
            raise ConfigError(f"{where} is no valid TOML: {first_line(error)}") from None
        if "study" not in table:
            raise ConfigError(f"{where} has no [study]; a recipe is carried out by lesionforge run")
        read = build_config(StudyFile, table, where=where)
        models = tuple(_read_model(name, values, where) for name, values in read.model.items())
        arms, externals = tuple(read.arm), tuple(read.external)
        study = cls(read.name, read.description, read.study, read.data, read.synthetic, models, arms, externals)
        study.check(where)
        return study

    def to_toml(self) -> str:
        """Return the study as TOML text, from which :meth:`from_toml` makes an equal study."""
        lines = [f"name = {write_value(self.name)}", f"description = {write_value(self.description)}"]
        lines += ["", "[study]", *_written(self.settings), "", "[data]", *_written(self.data)]
        for name, origin in self.synthetic.items():
            lines += ["", f"[synthetic.{write_key(name)}]", *_written(origin)]
        for model in self.models:
            lines += ["", f"[model.{write_key(model.name)}]", f"use = {write_value(model.trainer)}"]
            lines += written_values(model.values)
        for table, entries in (("arm", self.arms), ("external", self.externals)):
            for entry in entries:
                lines += ["", f"[[{table}]]", *_written(entry)]
        return "\n".join(lines) + "\n"

    def check(self, where: str = "study") -> None:
        """Raise ConfigError, which begins with ``where``, where parts of the study do not fit together."""
        if not self.models or not self.arms:
            raise ConfigError(f"{where}: at least one [model.NAME] and one [[arm]] are needed")
        for table, names in (("arm", self.arm_names), ("external", [external.name for external in self.externals])):
            twice = next((name for name in names if names.count(name) > 1), None)
            if twice is not None:
                raise ConfigError(f"{where}: two entries of [[{table}]] are called {twice!r}; rename one")
        for arm in self.arms:
            if arm.synthetic is not None and arm.synthetic not in self.synthetic:
                known = ", ".join(self.synthetic) or "none"
                raise ConfigError(
                    f"{where}: arm {arm.name!r}: there is no [synthetic.{arm.synthetic}]; there are {known}"
                )
        plain = [arm.name for arm in self.arms if arm.real and arm.synthetic is None]
        if len(plain) > 1:
            raise ConfigError(f"{where}: {plain[0]!r} and {plain[1]!r} are both of real images alone; leave one out")
        for pair in self.settings.compare:
            unknown = next((name for name in pair if name not in self.arm_names), None)
            if unknown is not None or pair[0] == pair[1]:
                told = f"there is no arm {unknown!r}" if unknown is not None else "an arm is compared with itself"
                raise ConfigError(f"{where}: compare = {list(pair)}: {told}; there are {', '.join(self.arm_names)}")
        if any(external.name == "test" for external in self.externals):
            raise ConfigError(f"{where}: an external set cannot be called 'test', which is the test split")

    @property
    def arm_names(self) -> list[str]:
        """Names of the arms, in order."""
        return [arm.name for arm in self.arms]

    @property
    def baseline(self) -> str | None:
        """Name of the arm of real images alone, or None."""
        return next((arm.name for arm in self.arms if arm.real and arm.synthetic is None), None)

    def with_value(self, path: str, value: Any) -> Study:
        """Return the study with one value replaced, as ``--set`` does.

        ``path`` is ``name``, ``study.key``, ``data.key``, ``model.NAME.key``, ``arm.NAME.key``, ``external.NAME.key``,
        ``synthetic.NAME.key``, or ``synthetic.NAME.set.PATH`` for a value of the recipe that makes the set.
        """
        from .replacement import replaced

        changed = replaced(self, path, value)
        changed.check(f"--set {path}")
        return changed

    def resolved(self, registry: Registry | None = None) -> Study:
        """Return the study with every model's defaults written out and its budget applied.

        Raises:
            PluginError: a trainer is unknown or broken.
            ConfigError: a value is not allowed, or a model does not say how long it trains.
        """
        registry = registry or default_registry()
        models = tuple(_resolved(model, self.settings.budget, registry) for model in self.models)
        return replace(self, models=models)

    def plan(
        self, *, output: str | Path, data: str | None = None, resume: bool = False, registry: Registry | None = None
    ) -> StudyPlan:
        """Return what :meth:`run` would do; no pixel is read, and data that are not there are told, not demanded."""
        from .plan import plan_study

        return plan_study(self, output=Path(output), data=data, resume=resume, registry=registry)

    def run(
        self,
        *,
        output: str | Path,
        data: str | Dataset | None = None,
        resume: bool = False,
        shard: tuple[int, int] | None = None,
        allow_leak: bool = False,
        device: str = "auto",
        observers: Sequence[object] = (),
        report: bool = True,
        registry: Registry | None = None,
    ) -> StudyResults:
        """Carry the study out in the folder ``output`` and return its results.

        Args:
            data: data specification or dataset; replaces the study's own.
            resume: go on with a study that is there already. Trainings that are finished are kept, also where the study
                file has changed; tables and report end as those of an uninterrupted study.
            shard: (i, n) from (1, n) to (n, n): carry out only every n-th training, without tables and report.
            allow_leak: go on where training and test data overlap; the report says so.
            device: ``auto``, ``cpu``, ``cuda`` ...
            observers: objects whose ``lesionforge.hookimpl`` methods follow the trainings.
            report: write ``report/index.html`` at the end.

        Raises:
            DataError: training and test data overlap, or there are too few cases for an arm.
            StoreError: ``output`` is in use by something else, or cannot be written.
            PluginFailure: a plugin raised; the study can be resumed.
        """
        from .runner import run_study

        return run_study(
            self,
            output=Path(output),
            data=data,
            resume=resume,
            shard=shard,
            allow_leak=allow_leak,
            device=device,
            observers=observers,
            report=report,
            registry=registry,
        )


def _written(settings: PluginConfig) -> list[str]:
    """Return the lines of settings; what is as by default stays out where that is nothing at all."""
    values = settings.model_dump(mode="json", exclude_none=True)
    return written_values({key: value for key, value in values.items() if value not in ((), [], {})})


def _read_model(name: str, values: Mapping[str, Any], where: str) -> Model:
    rest = {key: value for key, value in values.items() if key != "use"}
    return Model(name, used_plugin(values, f"{where}: [model.{name}]"), rest)


def _resolved(model: Model, budget: str, registry: Registry) -> Model:
    """Return the model with defaults written out, training for steps or for epochs as the budget says."""
    where = f"model {model.name}"
    plugin = registry.find(model.trainer, "trainer").plugin
    registry.configured(plugin, model.values, where=where)
    if budget not in plugin.Config.model_fields:
        raise ConfigError(f"{where}: trainer {model.trainer} knows no {budget}; take the other budget")
    values = dict(model.values)
    if budget == "steps" and values.get("steps") is None:
        raise ConfigError(f'{where}: budget = "steps" needs steps, the same number for all arms')
    values.pop("epochs" if budget == "steps" else "steps", None)
    for key, value in values.items():
        if isinstance(value, str) and value.startswith(JOB_REFERENCE):
            raise ConfigError(f"{where}: {key} = {value!r}: a study has no trainings to refer to; name a path")
    try:
        job = Recipe(jobs=(Job("model", model.trainer, ("real",), values),)).resolved(registry).jobs[0]
    except ConfigError as error:
        raise ConfigError(str(error).replace("training model", where, 1)) from None
    return replace(model, values=job.values)
