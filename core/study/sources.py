"""Where the synthetic sets of a study come from: run folders, recipes that the study carries out, other data."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError
from ..loading import load_dataset
from ..manifest import lines_hash, text_hash
from ..recipe import JOB_REFERENCE, Job, Recipe
from ..run import Run
from ..shipped import find_recipe
from .leaks import Known, fingerprints, without
from .provenance import Image, Provenance, provenance_of

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..registry import Registry
    from .settings import SyntheticSet
    from .store import StudyStore


@dataclass(frozen=True)
class Synthetic:
    """A synthetic set that is there.

    Attributes:
        name: what the study calls it.
        dataset: its accepted cases.
        images: the same with the hashes of their content.
        provenance: what it was made from.
        origin: where it comes from, for people.
        remarks: what a reader must know of it.
    """

    name: str
    dataset: Dataset
    images: tuple[Image, ...]
    provenance: Provenance
    origin: str
    remarks: tuple[str, ...] = ()


@dataclass(frozen=True)
class Sources:
    """Opens synthetic sets, and makes those that the study makes itself.

    Attributes:
        real: the study's real data with splits.
        tests: images of the test split and of external sets that are not de-leaked, by set.
    """

    store: StudyStore
    real: Dataset
    tests: Mapping[str, Sequence[Image]]
    device: str
    registry: Registry

    def open(self, name: str, settings: SyntheticSet) -> Synthetic:
        """Return the set ``name``; one that a recipe makes is made, or finished, first.

        Raises:
            DataError: it holds no case, or the data are missing.
        """
        if settings.recipe is not None:
            return self._made(name, settings)
        if settings.run is not None:
            return self._of_run(name, Run(settings.run), f"run {settings.run}")
        assert settings.data is not None
        run = _run_of(settings.data)
        if run is not None:
            return self._of_run(name, run, f"run {run.path}")
        dataset = load_dataset(settings.data, registry=self.registry)
        unknown = (
            f"Where synthetic set {name} ({settings.data}) comes from is not known, so neither is what it has seen."
        )
        return _synthetic(name, dataset, Provenance(), f"data {settings.data}", (unknown,))

    def _of_run(self, name: str, run: Run, origin: str, fitted_on: Sequence[str] = ()) -> Synthetic:
        provenance = provenance_of(run, self.registry, fitted_on)
        remarks = tuple(
            f"Synthetic set {name}: {line}, so a leak by it cannot be ruled out." for line in provenance.unknown
        )
        return _synthetic(name, run.dataset(), provenance, origin, remarks)

    def _made(self, name: str, settings: SyntheticSet) -> Synthetic:
        recipe = made_recipe(settings, where=f"synthetic set {name}")
        with self.store.alone(f"synthetic-{name}"):
            data, left_out = self._training_data(recipe, settings)
            identity = text_hash(recipe.resolved(self.registry).to_toml() + lines_hash(data.fingerprint()))
            folder = self.store.synthetic / f"{name}-{identity[:8]}"
            if not _complete(folder):
                resume = (folder / "recipe.toml").is_file()
                recipe.run(output=folder, data=data, resume=resume, device=self.device, registry=self.registry)
        fitted_on = data.where(lambda record: record.split == "train").fingerprint()
        origin = f"recipe {settings.recipe}, made by the study in {folder.name}"
        made = self._of_run(name, Run(folder), origin, fitted_on)
        if left_out:
            told = f"{left_out:,} images of {settings.trained_on} that the study tests on were left out of its making."
            made = replace(made, remarks=(*made.remarks, f"Synthetic set {name}: {told}"))
        return made

    def _training_data(self, recipe: Recipe, settings: SyntheticSet) -> tuple[Dataset, int]:
        """Return what the recipe may see, train and val, and how many images of its own data were left out."""
        from ..runner import real_data

        if settings.trained_on is None:
            return self.real.where(lambda record: record.split in ("train", "val")), 0
        source = recipe.with_value("data.source", settings.trained_on)
        data = real_data(source, None, self.registry)
        assert data is not None
        seen = data.where(lambda record: record.split in ("train", "val"))
        if not settings.deleak:
            return seen, 0
        kept = without(seen, Known(image for images in self.tests.values() for image in images))
        return kept, len(seen) - len(kept)


def made_recipe(settings: SyntheticSet, *, where: str) -> Recipe:
    """Return what the study carries out of a set's recipe: the chain and the trainings that it needs, nothing else.

    Raises:
        ConfigError: there is no such recipe, it makes no cases, or a value of ``set`` is not allowed.
    """
    try:
        recipe = find_recipe(str(settings.recipe))
        for path, value in settings.set.items():
            recipe = recipe.with_value(path, value)
    except ConfigError as error:
        raise ConfigError(f"{where}: {error}") from None
    if recipe.synthesis is None:
        raise ConfigError(f"{where}: recipe {settings.recipe} has no [[stage]], so it makes no cases")
    needed = [value for stage in recipe.synthesis.chain.stages for value in stage.values.values()]
    jobs: list[Job] = []
    for value in needed:
        name = str(value).removeprefix(JOB_REFERENCE)
        job = next((job for job in recipe.jobs if job.name == name), None)
        if str(value) != name and job is not None and job not in jobs:
            jobs.append(job)
            needed += job.values.values()
    kept = tuple(job for job in recipe.jobs if job in jobs)
    return replace(recipe, jobs=kept, metrics=(), data=recipe.data.model_copy(update={"source": None}))


def _complete(folder: Path) -> bool:
    """True where the run in ``folder`` has all of its cases."""
    from ..shards import missing_shards

    if not (folder / "recipe.toml").is_file():
        return False
    run = Run(folder)
    synthesis = run.recipe.synthesis
    return run.store.manifest.exists() and synthesis is not None and not missing_shards(run.store, synthesis)


def _run_of(data: str) -> Run | None:
    """Return the run that the specification ``run:PATH`` names, None for other data."""
    from ..chain import parse_call

    name, _, location = parse_call(data)
    return Run(location) if name == "run" and location is not None else None


def _synthetic(name: str, dataset: Dataset, provenance: Provenance, origin: str, remarks: tuple[str, ...]) -> Synthetic:
    if not len(dataset):
        raise DataError(f"synthetic set {name} holds no case with an image ({origin})")
    records = tuple(replace(record, split=None) for record in dataset.records)
    named = replace(dataset, name=name, records=records)
    return Synthetic(name, named, fingerprints(named), provenance, origin, remarks)
