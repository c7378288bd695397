"""Test images with the outlines of truth and of what two arms found: the best, the worst, and those most changed."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..pictures import Outline, outlined
from ..predictions import read_masks
from ..report.gallery import TILE, Picture, jpeg_source
from ..report.wording import fixed
from .outcomes import TEST, Outcome

if TYPE_CHECKING:
    from ..dataset import Dataset
    from ..decoding import Pixels
    from .recipe import Study

SHOWN = 4
MODELS_SHOWN = 4
COLOURS = {"truth": (255, 255, 255), "before": (255, 167, 58), "after": (72, 208, 255)}


@dataclass(frozen=True)
class Examples:
    """Rows of pictures of one model.

    Attributes:
        arm, against: the arms whose outlines are drawn, of their first common run.
        rows: title of each row, and its pictures.
    """

    model: str
    arm: str
    against: str
    real_count: int
    rows: tuple[tuple[str, list[Picture]], ...]


def examples(study: Study, outcomes: Sequence[Outcome], real: Dataset) -> list[Examples]:
    """Return examples of each model, with its fewest real images and the first arm that adds synthetic ones to them."""
    baseline, added = study.baseline, next((a.name for a in study.arms if a.real and a.synthetic), None)
    if baseline is None or added is None:
        return []
    found = []
    for model in list(dict.fromkeys(outcome.row.model for outcome in outcomes))[:MODELS_SHOWN]:
        ours, theirs = (_runs(outcomes, model, arm) for arm in (added, baseline))
        shared = sorted(ours.keys() & theirs.keys())
        pairs = [(ours[run], theirs[run]) for run in shared]
        if pairs and all("dice" in row for row in pairs[0][0].images.values()):
            rows = _rows(pairs, real.split(TEST))
            if rows:
                found.append(Examples(model, added, baseline, pairs[0][1].cell.real_count, rows))
    return found


def _runs(outcomes: Sequence[Outcome], model: str, arm: str) -> Mapping[tuple[int, int], Outcome]:
    """Return the runs of an arm at the fewest real images and the first amount, by seed and fold."""
    chosen = [o for o in outcomes if (o.row.model, o.row.arm, o.test) == (model, arm, TEST)]
    if not chosen:
        return {}
    fewest = min(outcome.cell.real_count for outcome in chosen)
    amount = next(outcome.row.amount for outcome in chosen if outcome.cell.real_count == fewest)
    return {o.repetition: o for o in chosen if o.cell.real_count == fewest and o.row.amount == amount}


def _rows(pairs: Sequence[tuple[Outcome, Outcome]], test: Dataset) -> tuple[tuple[str, list[Picture]], ...]:
    masks = tuple(read_masks(outcome.folder) for outcome in pairs[0])
    means = [_means([pair[side] for pair in pairs]) for side in (0, 1)]
    after, before = means
    images = [image for image in test.ids if image in masks[0] and image in masks[1]]
    images = [image for image in images if math.isfinite(after[image]) and math.isfinite(before[image])]
    if not images:
        return ()
    by_change = sorted(images, key=lambda image: after[image] - before[image])
    by_dice = sorted(images, key=lambda image: after[image])
    chosen = {
        "Gained most": [image for image in by_change[::-1][:SHOWN] if after[image] > before[image]],
        "Lost most": [image for image in by_change[:SHOWN] if after[image] < before[image]],
        "Best": by_dice[::-1][:SHOWN],
        "Worst": by_dice[:SHOWN],
    }
    rows = {image: row for row, image in enumerate(test.ids)}

    def picture(image: str) -> Picture:
        outlines = [
            Outline(test.mask(rows[image]), COLOURS["truth"]),
            Outline(masks[1][image], COLOURS["before"]),
            Outline(masks[0][image], COLOURS["after"]),
        ]
        line = f"Dice {fixed(before[image])} to {fixed(after[image])}"
        return Picture(_tile(test.image(rows[image]), outlines), f"test image {image}, {line}", image, (line,))

    return tuple((title, [picture(image) for image in listed]) for title, listed in chosen.items() if listed)


def _means(outcomes: Sequence[Outcome]) -> dict[str, float]:
    """Return each image's mean Dice over runs."""
    values = [outcome.values("dice") for outcome in outcomes]
    return {image: math.fsum(one.get(image, math.nan) for one in values) / len(values) for image in values[0]}


def _tile(image: Pixels, outlines: Sequence[Outline]) -> str:
    return jpeg_source(outlined(image, outlines, TILE))
