"""Cells: trainings with the very data that they see, each called by the hash of everything that shapes it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import TYPE_CHECKING, Any

from ..checkpoints import checkpoint_path
from ..config import checkpoint_fields
from ..dataset import Dataset
from ..manifest import canonical_json, lines_hash, published_hash, text_hash
from ..recipe import Job
from .grid import Training
from .preparation import Material
from .subsets import real_part, synthetic_part, with_fold

if TYPE_CHECKING:
    from ..registry import Registry
    from .recipe import Model, Study

KEY_LENGTH = 16


@dataclass(frozen=True)
class Cell:
    """One training of the grid.

    Attributes:
        key: hash of trainer, configuration, seed, precision, and of every image and mask that it sees or is tested on.
        real: what it gets of the real data, with splits.
        synthetic: what it gets of a synthetic set.
        real_count, synthetic_count: numbers of training images.
    """

    key: str
    training: Training
    job: Job
    real: Dataset
    synthetic: Dataset | None
    real_count: int
    synthetic_count: int

    @property
    def label(self) -> str:
        """What it is, for people: ``unet, 50 real + 50 dilated, seed 0``."""
        parts = [f"{self.real_count:,} real"] if self.real_count else []
        parts += [f"{self.synthetic_count:,} {self.training.synthetic}"] if self.synthetic_count else []
        fold = "" if self.training.fold is None else f", fold {self.training.fold + 1}"
        return f"{self.training.model}, {' + '.join(parts)}, seed {self.training.seed}{fold}"


@dataclass(frozen=True)
class CellMaker:
    """Turns entries of the grid into cells."""

    study: Study
    material: Material
    precision: str
    registry: Registry

    def make(self, training: Training) -> Cell:
        """Return the cell of ``training``.

        Raises:
            DataError: there are fewer cases than it takes.
        """
        real = with_fold(self.material.real, training.fold, self.study.settings.folds)
        pool = real.split("train")
        chosen = real_part(pool, training.real, training.seed) if training.real else pool.take(())
        parts = self._with_part(real, chosen)
        synthetic = self._synthetic(training, pool, len(chosen))
        on = tuple(kind for kind, takes in (("real", training.real), ("synthetic", synthetic)) if takes)
        model = self._models[training.model]
        key = self._key(model, training.seed, on, parts, synthetic)
        job = Job(key, model.trainer, on, model.values)
        return Cell(key, training, job, parts, synthetic, len(chosen), len(synthetic or ()))

    def _with_part(self, real: Dataset, chosen: Dataset) -> Dataset:
        """Return ``real`` with ``chosen`` alone for training, and without validation where the study wants none."""
        ids, validates = set(chosen.ids), self.study.settings.validation

        def takes_part(split: str | None, image_id: str) -> bool:
            return split == "test" or (split == "val" and validates) or (split == "train" and image_id in ids)

        return real.where(lambda record: takes_part(record.split, record.image_id))

    def _synthetic(self, training: Training, pool: Dataset, real: int) -> Dataset | None:
        if training.synthetic is None or training.amount is None:
            return None
        dataset = self.material.synthetic[training.synthetic].dataset
        if training.beside is not None:
            real = len(pool) if training.beside == "all" else training.beside
        return synthetic_part(dataset, training.amount.of(real, len(dataset)), training.seed)

    @cached_property
    def _models(self) -> Mapping[str, Model]:
        return {model.name: model for model in self.study.models}

    @cached_property
    def _lines(self) -> Mapping[str, Mapping[str, str]]:
        """Fingerprints by image id of the real data and of every synthetic set, read once."""
        sets = {"": self.material.real, **{name: made.dataset for name, made in self.material.synthetic.items()}}
        return {name: dict(zip(data.ids, data.fingerprint(), strict=True)) for name, data in sets.items()}

    @cached_property
    def _weights(self) -> Mapping[str, Mapping[str, str]]:
        """Hashes of the files that each model begins with."""
        hashes: dict[str, dict[str, str]] = {}
        for model in self.study.models:
            config = self.registry.find(model.trainer, "trainer").plugin.Config
            named = {key: model.values.get(key) for key in checkpoint_fields(config)}
            paths = {key: checkpoint_path(str(value)) for key, value in named.items() if value is not None}
            hashes[model.name] = {key: published_hash(path) for key, path in paths.items() if path.exists()}
        return hashes

    def _key(self, model: Model, seed: int, on: tuple[str, ...], real: Dataset, synthetic: Dataset | None) -> str:
        facts: dict[str, Any] = {
            "trainer": model.trainer,
            "config": dict(model.values),
            "weights": self._weights[model.name],
            "seed": seed,
            "precision": self.precision,
            "on": on,
            "size": real.size,
            "real": self._content("", real),
            "synthetic": None if synthetic is None else self._content(synthetic.name, synthetic),
        }
        return text_hash(canonical_json(facts))[:KEY_LENGTH]

    def _content(self, name: str, dataset: Dataset) -> list[str]:
        """Return the dataset's name and the hash of its fingerprint, with the splits that its records have now."""
        lines = []
        for record in dataset.records:
            row = json.loads(self._lines[name][record.image_id])
            lines.append(json.dumps([*row[:2], record.split, *row[3:]], ensure_ascii=False))
        return [dataset.name, lines_hash(lines)]


def external_folder(name: str, dataset: Dataset) -> str:
    """Return the name of the folder in which a cell keeps its results on an external set: it follows the content."""
    return f"{name}-{lines_hash(dataset.fingerprint())[:8]}"
