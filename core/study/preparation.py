"""From a study to what its trainings need: data with splits, synthetic sets, further test sets, all free of leaks."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from ..errors import ConfigError, DataError
from ..loading import absolute_source, load_dataset
from ..recipe import Recipe
from .grid import trainings
from .leaks import Known, Leak, fingerprints, refuse, split_leaks, synthetic_leaks, without
from .provenance import Image
from .sources import Sources, Synthetic, made_recipe
from .subsets import real_part

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..registry import Registry
    from .recipe import Study
    from .settings import ExternalSet
    from .store import StudyStore


@dataclass(frozen=True)
class Material:
    """All data of a study.

    Attributes:
        real: the real data with splits.
        synthetic: the synthetic sets that arms use, by name.
        externals: further test sets, by name.
        leaks: overlaps of training and test data that were allowed.
        remarks: what a reader must know of the data.
    """

    real: Dataset
    synthetic: Mapping[str, Synthetic]
    externals: Mapping[str, Dataset]
    leaks: tuple[Leak, ...]
    remarks: tuple[str, ...]

    @property
    def phantom(self) -> bool:
        """True where procedural phantoms are anywhere in it."""
        sets = [self.real, *(made.dataset for made in self.synthetic.values()), *self.externals.values()]
        return any(dataset.phantom for dataset in sets)


def with_absolute_sources(study: Study, data: str | None) -> Study:
    """Return the study on ``data``, or on its own, with all data and runs named by absolute paths."""
    source = study.data.source if data is None else data
    if source is not None:
        study = study.with_value("data.source", absolute_source(source))
    for name, origin in study.synthetic.items():
        if origin.run is not None:
            study = study.with_value(f"synthetic.{name}.run", str(Path(origin.run).expanduser().absolute()))
        for key in ("data", "trained_on"):
            if getattr(origin, key) is not None:
                study = study.with_value(f"synthetic.{name}.{key}", absolute_source(getattr(origin, key)))
    for external in study.externals:
        study = study.with_value(f"external.{external.name}.data", absolute_source(external.data))
    return study


def study_data(study: Study, given: Dataset | None, registry: Registry) -> Dataset:
    """Return the study's real data with splits.

    Raises:
        ConfigError: none are named.
        DataError: they are missing, or have no test split.
    """
    from ..runner import real_data

    real = real_data(Recipe(data=study.data), given, registry)
    if real is None:
        raise ConfigError("a study needs real data; name some, for example --data isic2018:PATH")
    for split in ("train", "test"):
        real.split(split)
    return real


def prepare(
    study: Study, real: Dataset, store: StudyStore, *, device: str, allow_leak: bool, registry: Registry
) -> Material:
    """Open or make everything that ``study`` needs.

    Raises:
        DataError: data are missing, or a test set leaks and ``allow_leak`` is false.
    """
    images = fingerprints(real)
    leaks, remarks = split_leaks(images), []
    refuse(leaks, allow=allow_leak)
    trained = [image for image in images if image.split in ("train", "val")]
    loaded = {external.name: _external(external, registry) for external in study.externals}
    tested = {name: fingerprints(dataset) for name, dataset in loaded.items()}
    kept = {external.name for external in study.externals if not external.deleak}
    tests = {"test": tuple(image for image in images if image.split == "test")}
    tests |= {name: tested[name] for name in tested if name in kept}
    for name in kept:
        shared = Known(trained).among(tested[name], images)
        leaks += [Leak(name, "training", tuple(shared))] if shared else []
    refuse(leaks, allow=allow_leak)
    _check_counts(study, real)
    sources = Sources(store, real, tests, device, registry)
    used = {arm.synthetic for arm in study.arms}
    synthetic = {name: sources.open(name, origin) for name, origin in study.synthetic.items() if name in used}
    for made in synthetic.values():
        leaks += synthetic_leaks(made.name, made.images, made.provenance, tests, images)
        remarks += made.remarks
    refuse(leaks, allow=allow_leak)
    known = Known([*trained, *(image for made in synthetic.values() for image in _behind(made))])
    externals = {}
    for name, dataset in loaded.items():
        externals[name] = dataset if name in kept else without(dataset, known, tested[name])
        left_out = len(dataset) - len(externals[name])
        if not len(externals[name]):
            raise DataError(f"external set {name}: every image of it is known to a training or a generator")
        if left_out:
            remarks.append(f"External set {name}: {left_out:,} images known to trainings or generators were left out.")
    return Material(real, synthetic, externals, tuple(leaks), tuple(remarks))


def _check_counts(study: Study, real: Dataset) -> None:
    """Raise DataError where an arm takes more cases than there are, or than a recipe makes, before any is made."""
    pool = sum(record.split == "train" for record in real.records)
    for count in study.settings.real_counts if study.settings.folds is None else ():
        real_part(real.split("train"), count, 0)
    for training in trainings(study):
        origin = study.synthetic.get(training.synthetic or "")
        if origin is None or origin.recipe is None or training.amount is None or training.amount.kind == "all":
            continue
        synthesis = made_recipe(origin, where=f"synthetic set {training.synthetic}").synthesis
        beside = training.real if training.beside is None else training.beside
        wanted = training.amount.of(pool if beside == "all" else beside, 0)
        if synthesis is not None and wanted > synthesis.count:
            raise DataError(
                f"an arm takes {wanted:,} cases of synthetic set {training.synthetic}, but its recipe makes "
                f"{synthesis.count:,}, of which those accepted count; raise synthetic.{training.synthetic}.set."
                "synthesis.count"
            )


def _external(settings: ExternalSet, registry: Registry) -> Dataset:
    dataset = load_dataset(settings.data, split=settings.split, registry=registry)
    records = tuple(replace(record, split="test") for record in dataset.records)
    return replace(dataset, name=settings.name, records=records)


def _behind(made: Synthetic) -> list[Image]:
    return [*made.images, *(image for seen in made.provenance.seen for image in seen.images)]
