"""What a study would do in a folder, found out without creating anything, decoding a pixel or loading a network."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..dataset import SPLITS
from ..errors import CheckpointError, DataError, StoreError
from ..loading import load_dataset
from ..recipe import Recipe
from ..registry import Registry, default_registry
from ..run import Run
from .grid import Row, Training, rows, trainings
from .preparation import with_absolute_sources
from .recipe import Study
from .sources import made_recipe
from .store import StudyStore

if TYPE_CHECKING:
    from ..dataset import Dataset
    from .settings import SyntheticSet


@dataclass(frozen=True)
class StudyPlan:
    """What :meth:`Study.run` would do.

    Attributes:
        study: with every default written out.
        data: ``source``, ``name``, ``phantom``, ``cases`` and ``splits`` of the real data; None where there are none.
        synthetic: what each synthetic set is, and its cases as far as they are known.
        externals: what each external set is.
        missing: what is not there yet that the study needs, one line each.
        rows: the grid as tables will show it.
        trainings: what will be trained, each once.
        steps: optimisation steps of all trainings; None where they depend on data that are not there.
        finished: trainings that the folder holds already.
        obstacle: the line that running would end with at once, or None.
    """

    study: Study
    output: Path
    data: Mapping[str, Any] | None
    synthetic: Mapping[str, str]
    externals: Mapping[str, str]
    missing: tuple[str, ...]
    rows: tuple[Row, ...]
    trainings: tuple[Training, ...]
    steps: int | None
    finished: int
    obstacle: str | None

    def as_dict(self) -> dict[str, Any]:
        """Return the plan as values that JSON can hold."""
        return {
            "name": self.study.name,
            "output": str(self.output),
            "obstacle": self.obstacle,
            "data": self.data,
            "synthetic": dict(self.synthetic),
            "external": dict(self.externals),
            "missing": list(self.missing),
            "models": [{"name": m.name, "use": m.trainer, "config": m.values} for m in self.study.models],
            "arms": self.study.arm_names,
            "seeds": list(self.study.settings.seeds),
            "folds": self.study.settings.folds,
            "real_counts": list(self.study.settings.real_counts),
            "rows": len(self.rows),
            "trainings": len(self.trainings),
            "finished": self.finished,
            "steps": self.steps,
        }


def plan_study(study: Study, *, output: Path, data: str | None, resume: bool, registry: Registry | None) -> StudyPlan:
    """Return what ``study`` would do in ``output``, see :meth:`Study.plan`.

    Raises:
        PluginError: a plugin is unknown or broken.
        ConfigError: a value is not allowed.
    """
    registry = registry or default_registry()
    study = with_absolute_sources(study, data).resolved(registry)
    missing: list[str] = []
    real = _real(study, registry, missing)
    counts: dict[str, int] = {}
    used = {arm.synthetic for arm in study.arms}
    synthetic = {
        name: _synthetic(name, origin, registry, counts, missing)
        for name, origin in study.synthetic.items()
        if name in used
    }
    externals = {external.name: _external(external.data, registry, missing) for external in study.externals}
    listed = tuple(trainings(study))
    # Without splits of their own, data are parted only when the study begins.
    pool = sum(r.split == "train" for r in real.records) if real is not None and real.has_splits() else None
    store = StudyStore(output)
    return StudyPlan(
        study=study,
        output=output,
        data=None if real is None else _described(str(study.data.source), real),
        synthetic=synthetic,
        externals=externals,
        missing=tuple(missing),
        rows=tuple(rows(study)),
        trainings=listed,
        steps=_steps(study, listed, pool, counts),
        finished=len(list(store.jobs.glob("*/metrics.json"))),
        obstacle=store.obstacle(resume=resume),
    )


def _real(study: Study, registry: Registry, missing: list[str]) -> Dataset | None:
    """Return the real data as far as tables tell them, or None with the reason in ``missing``."""
    if study.data.source is None:
        missing.append("real data: none are named; --data names some, for example isic2018:PATH")
        return None
    try:
        return load_dataset(study.data.source, registry=registry)
    except DataError as error:
        missing.append(f"real data: {error}")
        return None


def _synthetic(name: str, origin: SyntheticSet, registry: Registry, counts: dict[str, int], missing: list[str]) -> str:
    if origin.recipe is not None:
        try:
            recipe = made_recipe(origin, where=f"synthetic set {name}").resolved(registry)
        except CheckpointError as error:
            missing.append(f"synthetic set {name}: {error}")
            return f"made by recipe {origin.recipe}"
        cases = recipe.synthesis.count if recipe.synthesis else 0
        return f"made by recipe {origin.recipe}: {_jobs(recipe)}{cases:,} cases, of which those accepted count"
    try:
        if origin.run is not None:
            counts[name] = sum(1 for case in Run(origin.run).cases(kept=True) if "image" in case.files)
            return f"run {origin.run}: {counts[name]:,} accepted cases"
        counts[name] = len(load_dataset(str(origin.data), registry=registry))
        return f"data {origin.data}: {counts[name]:,} cases of unknown origin"
    except (DataError, StoreError) as error:
        missing.append(f"synthetic set {name}: {error}")
        return origin.run or str(origin.data)


def _jobs(recipe: Recipe) -> str:
    names = ", ".join(job.name for job in recipe.jobs)
    return f"trainings {names}, then " if names else ""


def _external(spec: str, registry: Registry, missing: list[str]) -> str:
    try:
        return f"{spec}: {len(load_dataset(spec, registry=registry)):,} images"
    except DataError as error:
        missing.append(f"external set {spec}: {error}")
        return spec


def _described(source: str, real: Dataset) -> dict[str, Any]:
    splits = Counter(record.split or "unassigned" for record in real.records)
    return {
        "source": source,
        "name": real.name,
        "phantom": real.phantom,
        "cases": len(real),
        "splits": {name: splits[name] for name in (*SPLITS, "unassigned") if splits[name]},
    }


def _steps(study: Study, listed: tuple[Training, ...], pool: int | None, counts: Mapping[str, int]) -> int | None:
    """Return the steps of all trainings, None where they depend on what is not known."""
    models = {model.name: model.values for model in study.models}
    total = 0
    for training in listed:
        values = models[training.model]
        if study.settings.budget == "steps":
            total += int(values["steps"])
            continue
        cases = _cases(training, pool, counts)
        if cases is None or "batch_size" not in values:
            return None
        total += int(values["epochs"]) * -(-cases // int(values["batch_size"]))
    return total


def _cases(training: Training, pool: int | None, counts: Mapping[str, int]) -> int | None:
    """Return the number of training cases, None where it is not known."""
    real = pool if training.real == "all" else training.real
    if real is None or training.amount is None:
        return real
    beside = (pool if training.beside == "all" else training.beside) if training.beside is not None else real
    available = counts.get(str(training.synthetic), 0)
    if beside is None or (training.amount.kind == "all" and not available):
        return None
    return real + training.amount.of(beside, available)
