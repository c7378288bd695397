"""What classifiers look at: heat maps of evenly chosen cases, by any plugin that explains its checkpoints."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .checkpoints import checkpoint_path
from .context import Context, choose_device
from .errors import CheckpointError, ConfigError, DataError
from .guarding import guarded
from .registry import Registry, default_registry

if TYPE_CHECKING:
    from torch import Tensor

    from .dataset import Dataset
    from .decoding import Pixels

METHODS = ("gradcam", "saliency", "occlusion")
CASES_AT_ONCE = 4

Heat = NDArray[np.float32]


class Explainer(Protocol):
    """A classifier in evaluation mode that can say which places its decisions rest on.

    Attributes:
        classes: what it tells apart, in order.
        size: edge in pixels of the images it takes.
    """

    classes: tuple[str, ...]
    size: int

    def probabilities(self, images: Tensor) -> Tensor:
        """Return (N, K) probabilities of the classes for (N, 3, size, size) images in [0, 1]."""
        ...

    def heat(self, method: str, images: Tensor, targets: Sequence[int]) -> Tensor:
        """Return (N, h, w) heat, 0 or more and larger where the class ``targets[n]`` rests on image n.

        Raises:
            ConfigError: the network has no such map; the message says what it has.
        """
        ...


@dataclass(frozen=True)
class Explanation:
    """What one classifier says of one case, and where it looks.

    Attributes:
        predicted, probability: the most probable class, which the heat explains.
        heat: method -> (h, w) heat, 0 or more.
        in_lesion: method -> share of the heat inside the mask; None without a mask or without heat.
    """

    predicted: str
    probability: float
    heat: Mapping[str, Heat]
    in_lesion: Mapping[str, float | None]


@dataclass(frozen=True)
class ExplainedCase:
    """One case with what every classifier says of it.

    Attributes:
        lesion_area: share of the image inside the mask, with which ``in_lesion`` compares; None without a mask.
        explanations: one a classifier, in the order of :attr:`Explained.checkpoints`.
    """

    image_id: str
    label: str | None
    image: Pixels
    mask: Pixels | None
    lesion_area: float | None
    explanations: tuple[Explanation, ...]


@dataclass(frozen=True)
class Explained:
    """What :func:`explain` found.

    Attributes:
        dataset, total: name of the data and their number of cases.
        phantom: True where they are procedural phantoms.
        checkpoints: names of the classifiers.
        methods: methods, in the order of columns.
        cases: the chosen cases.
    """

    dataset: str
    total: int
    phantom: bool
    checkpoints: tuple[str, ...]
    methods: tuple[str, ...]
    cases: tuple[ExplainedCase, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all but pixels and heat as values that JSON can hold."""
        cases = [
            {
                "image_id": case.image_id,
                "label": case.label,
                "lesion_area": case.lesion_area,
                "explanations": [
                    {
                        "checkpoint": name,
                        "predicted": said.predicted,
                        "probability": said.probability,
                        "heat_in_lesion": dict(said.in_lesion),
                    }
                    for name, said in zip(self.checkpoints, case.explanations, strict=True)
                ],
            }
            for case in self.cases
        ]
        facts = {"dataset": self.dataset, "total": self.total, "phantom": self.phantom}
        return {**facts, "checkpoints": list(self.checkpoints), "methods": list(self.methods), "cases": cases}


def explain(
    checkpoints: Sequence[str],
    dataset: Dataset,
    *,
    methods: Sequence[str] = METHODS,
    count: int = 8,
    device: str = "auto",
    progress: Callable[[int, int], None] | None = None,
    registry: Registry | None = None,
) -> Explained:
    """Let classifiers explain what they predict for the same cases of ``dataset``.

    Args:
        checkpoints: folders that a trainer of classifiers wrote, such as R and R+S.
        methods: some of ``gradcam``, ``saliency`` and ``occlusion``.
        count: number of cases, chosen by :func:`even_rows`.
        progress: called with (done, total).

    Raises:
        CheckpointError: no plugin explains a checkpoint, or it is damaged.
        ConfigError: a method is unknown, or a network has no map for it.
        DataError: there are no cases.
    """
    unknown = [method for method in methods if method not in METHODS]
    if unknown or not methods or not checkpoints or count < 1:
        wrong = f"no method {unknown[0]!r}" if unknown else "nothing to explain"
        raise ConfigError(f"{wrong}: name a checkpoint, at least one case, and some of {', '.join(METHODS)}")
    if not len(dataset):
        raise DataError(f"dataset {dataset.name} has no cases to explain")
    methods = tuple(dict.fromkeys(methods))
    registry = registry or default_registry()
    chosen = dataset.take(even_rows(dataset, count))
    said: list[list[Explanation]] = [[] for _ in chosen.records]
    for number, name in enumerate(checkpoints):
        explainer = _opened(name, Context(choose_device(device), registry=registry), registry)
        with guarded(f"explaining with {name} failed"):
            for row, explanation in enumerate(_explanations(explainer, chosen, methods, device)):
                said[row].append(explanation)
                if progress is not None:
                    progress(number * len(chosen) + row + 1, len(checkpoints) * len(chosen))
    return Explained(
        dataset.name, len(dataset), dataset.phantom, _short_names(checkpoints), methods, tuple(_cases(chosen, said))
    )


def even_rows(dataset: Dataset, count: int) -> list[int]:
    """Return at most ``count`` rows, not chosen by looks: as many of each class, evenly spaced within it.

    A class with fewer cases leaves its places to the others. Cases without a label are taken where none has one.
    """
    by_class: dict[str, list[int]] = {}
    all_alike = not dataset.classes
    for row, record in enumerate(dataset.records):
        if all_alike or record.label is not None:
            by_class.setdefault(record.label or "", []).append(row)
    left, chosen = count, {name: [] for name in sorted(by_class)}
    for done, name in enumerate(sorted(by_class, key=lambda name: len(by_class[name]))):
        rows = by_class[name]
        share = min(left // (len(by_class) - done), len(rows))
        chosen[name] = [rows[number * len(rows) // share] for number in range(share)]
        left -= share
    return [row for rows in chosen.values() for row in rows]


def _opened(name: str, context: Context, registry: Registry) -> Explainer:
    folder = checkpoint_path(name)
    with guarded(f"checkpoint {name} could not be opened"):
        explainer = registry.hooks.hook.open_explainer(checkpoint=Path(folder), context=context)
    if explainer is None:
        raise CheckpointError(f"{folder} holds no classifier; give the folder that the trainer classification wrote")
    return explainer


def _explanations(explainer: Explainer, data: Dataset, methods: Sequence[str], device: str) -> Iterator[Explanation]:
    sized = data.resized(explainer.size)
    for first in range(0, len(data), CASES_AT_ONCE):
        rows = range(first, min(first + CASES_AT_ONCE, len(data)))
        images = sized.fetch(rows, masks=False).images
        assert images is not None
        images = images.to(choose_device(device))
        best = explainer.probabilities(images).max(dim=1)
        targets = best.indices.tolist()
        maps = {name: explainer.heat(name, images, targets).float().cpu().numpy() for name in methods}
        for place, row in enumerate(rows):
            heat = {name: found[place] for name, found in maps.items()}
            mask = None if data.records[row].mask is None else sized.mask(row)
            shares = {name: None if mask is None else share_inside(found, mask) for name, found in heat.items()}
            yield Explanation(explainer.classes[targets[place]], float(best.values[place]), heat, shares)


def share_inside(heat: Heat, mask: Pixels) -> float | None:
    """Return the share of (h, w) heat, enlarged to the (H, W) mask, that lies inside it; None of no heat.

    Half of the "energy-based pointing game" of Wang et al. 2020 (Score-CAM), with a mask in place of a box.
    """
    fine = enlarged(heat, (mask.shape[1], mask.shape[0]))
    total = float(fine.sum())
    return float(fine[mask > 0].sum()) / total if total > 0 else None


def enlarged(heat: Heat, size: tuple[int, int]) -> Heat:
    """Return (h, w) heat, bilinear, at (width, height) ``size``."""
    from PIL import Image

    picture = Image.fromarray(np.ascontiguousarray(heat, np.float32))
    return np.asarray(picture.resize(size, Image.Resampling.BILINEAR))


def _cases(data: Dataset, said: Sequence[Sequence[Explanation]]) -> Iterator[ExplainedCase]:
    for row, record in enumerate(data.records):
        mask = None if record.mask is None else data.mask(row)
        area = None if mask is None else float((mask > 0).mean())
        yield ExplainedCase(record.image_id, record.label, data.image(row), mask, area, tuple(said[row]))


def _short_names(checkpoints: Sequence[str]) -> tuple[str, ...]:
    """Return the folders' own names, or what the user wrote where two are alike."""
    names = [Path(name).name or name for name in checkpoints]
    return tuple(names) if len(set(names)) == len(names) else tuple(checkpoints)
