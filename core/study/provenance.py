"""Which images stand behind a synthetic set: what its generator, its annotators and its fitted filters learnt from."""

from __future__ import annotations

import json
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..checkpoints import BUILTIN_REFERENCE, checkpoint_path
from ..config import checkpoint_fields
from ..durable import read_json
from ..errors import LesionforgeError, PluginError, StoreError
from ..job_files import FACTS, TRAINING_DATA, VALIDATION_DATA
from ..manifest import lines_hash
from ..recipe import JOB_REFERENCE
from ..registry import Registry
from ..roles import STAGE_ROLES
from ..run import Run


@dataclass(frozen=True)
class Image:
    """One image of a dataset, as :meth:`Dataset.fingerprint` writes it.

    Attributes:
        image: SHA-256 of its file or pixels.
    """

    image_id: str
    lesion: str
    split: str | None
    image: str

    @classmethod
    def read(cls, line: str) -> Image:
        """Return the image of one line; raises ValueError where it is no such line."""
        image_id, lesion, split, image, _ = json.loads(line)
        return cls(image_id, lesion, split, image)


@dataclass(frozen=True)
class Seen:
    """Images that shaped synthetic cases, and through what: ``training generator``, ``fit of feature-gate``."""

    by: str
    images: tuple[Image, ...]


@dataclass(frozen=True)
class Provenance:
    """All that is known of a synthetic set's origin.

    Attributes:
        seen: what its networks and fits learnt from.
        unknown: what cannot be told, one line each.
    """

    seen: tuple[Seen, ...] = ()
    unknown: tuple[str, ...] = ()

    @property
    def images(self) -> int:
        """Number of different images that are known to have shaped the cases."""
        return len({image.image for seen in self.seen for image in seen.images})


def images_of(lines: Iterable[str]) -> tuple[Image, ...]:
    """Return the images of fingerprint lines."""
    return tuple(Image.read(line) for line in lines if line)


def provenance_of(run: Run, registry: Registry, fitted_on: Sequence[str] = ()) -> Provenance:
    """Return what stands behind the cases of ``run``: trainings that its stages use, what those began with, and fits.

    Args:
        fitted_on: fingerprint of the training images, where the caller knows what the run cannot tell.

    Raises:
        StoreError: a file of the run is damaged.
    """
    walk = _Walk(registry, fitted_on, [], [], set())
    synthesis = run.recipe.synthesis
    stages = zip(synthesis.chain.keys, synthesis.chain.stages, strict=True) if synthesis else ()
    for key, stage in stages:
        try:
            plugin: Any = registry.find(stage.plugin, *STAGE_ROLES).plugin
        except PluginError as error:
            walk.unknown.append(f"stage {key}: {error}")
            continue
        walk.checkpoints(plugin, stage.values, run, of=f"stage {key}")
        if plugin.needs_fit:
            walk.fit(run, key)
    return Provenance(tuple(walk.seen), tuple(dict.fromkeys(walk.unknown)))


@dataclass(frozen=True)
class _Walk:
    """From stages to checkpoints, from checkpoints to the trainings that left them, and on."""

    registry: Registry
    fitted_on: Sequence[str]
    seen: list[Seen]
    unknown: list[str]
    visited: set[Path]

    def checkpoints(self, plugin: Any, values: Mapping[str, Any], run: Run | None, *, of: str) -> None:
        """Follow every checkpoint that ``values`` name; ``run`` is the one that ``train:NAME`` refers to."""
        for key in checkpoint_fields(plugin.Config):
            value = values.get(key)
            if value is None:
                continue
            name = str(value).removeprefix(JOB_REFERENCE)
            if name != value and run is not None:
                self._training(run.store.jobs / name, run)
                continue
            folder = _folder(name)
            if folder is not None and (folder / TRAINING_DATA).is_file():
                self._training(folder, _run_around(folder), from_scratch=name.startswith(BUILTIN_REFERENCE))
            else:
                self.unknown.append(f"{of}: nothing tells what {key} = {value} was trained on")

    def _training(self, folder: Path, run: Run | None, *, from_scratch: bool = False) -> None:
        if folder.resolve() in self.visited:
            return
        self.visited.add(folder.resolve())
        name = f"training {folder.name}"
        images = tuple(image for file in (TRAINING_DATA, VALIDATION_DATA) for image in _read(folder / file))
        if images:
            self.seen.append(Seen(name, images))
        else:
            self.unknown.append(f"{name}: {folder / TRAINING_DATA} is missing")
        if not (folder / FACTS).is_file():
            self.unknown.extend([] if from_scratch else [f"{name}: nothing tells what it began with"])
            return
        facts = read_json(folder / FACTS)
        try:
            plugin = self.registry.find(str(facts.get("trainer")), "trainer").plugin
        except PluginError as error:
            self.unknown.append(f"{name}: {error}")
            return
        self.checkpoints(plugin, facts.get("config", {}), run, of=name)

    def fit(self, run: Run, key: str) -> None:
        """Find the images that stage ``key`` was fitted on by the hash that the manifest keeps of them."""
        data = run.manifest.get("data") or {}
        lines = _lines_of(run, data.get("sha256"), self.fitted_on)
        if lines is None:
            self.unknown.append(f"stage {key}: the images that it was fitted on can no longer be told")
        else:
            self.seen.append(Seen(f"fit of {key}", images_of(lines)))


def _folder(checkpoint: str) -> Path | None:
    try:
        return checkpoint_path(checkpoint)
    except LesionforgeError:
        return None


def _run_around(folder: Path) -> Run | None:
    """Return the run whose job the checkpoint ``folder`` is, None where it lies alone."""
    try:
        return Run(folder.resolve().parents[1])
    except (StoreError, IndexError):
        return None


def _read(file: Path) -> tuple[Image, ...]:
    if not file.is_file():
        return ()
    try:
        return images_of(file.read_text(encoding="utf-8").split("\n"))
    except (OSError, ValueError, TypeError) as error:
        raise StoreError(f"{file} is damaged: {error}") from error


def _lines_of(run: Run, sha256: str | None, known: Sequence[str]) -> Sequence[str] | None:
    """Return the fingerprint with this hash: known, or of a training of the run, or of the data that it names."""
    if known and lines_hash(known) == sha256:
        return known
    for facts in sorted(run.store.jobs.glob(f"*/{FACTS}")):
        lines = (facts.parent / TRAINING_DATA).read_text(encoding="utf-8").split("\n")[:-1]
        if lines_hash(lines) == sha256:
            return lines
    from ..runner import real_data

    try:
        real = real_data(run.recipe, None)
    except LesionforgeError:
        return None
    lines = real.split("train").fingerprint() if real is not None else []
    return lines if lines_hash(lines) == sha256 else None
