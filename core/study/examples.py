"""Test images on which two arms differ most or do worst; of segmenters with the outlines of truth and of both arms."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ..pictures import Outline, outlined
from ..predictions import read_masks
from ..report.gallery import TILE, Picture, jpeg_source
from ..report.wording import fixed
from .outcomes import TEST, Outcome

if TYPE_CHECKING:
    from ..dataset import Dataset
    from .recipe import Study

SHOWN = 4
MODELS_SHOWN = 4
DICE, CORRECT = "dice", "correct"
COLOURS = {"truth": (255, 255, 255), "before": (255, 167, 58), "after": (72, 208, 255)}


@dataclass(frozen=True)
class Examples:
    """Rows of pictures of one model.

    Attributes:
        arm, against: the arms that are compared.
        outlined: True where pictures show the masks of both arms' first common run beside the truth.
        rows: title of each row, and its pictures.
    """

    model: str
    arm: str
    against: str
    real_count: int
    outlined: bool
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
        column = next((name for name in (DICE, CORRECT) if pairs and _has_column(pairs[0][0], name)), None)
        rows = _rows(pairs, column, real.split(TEST)) if column else ()
        if rows:
            found.append(Examples(model, added, baseline, pairs[0][1].cell.real_count, column == DICE, rows))
    return found


def _has_column(outcome: Outcome, name: str) -> bool:
    return all(name in row for row in outcome.images.values())


def _runs(outcomes: Sequence[Outcome], model: str, arm: str) -> Mapping[tuple[int, int], Outcome]:
    """Return the runs of an arm at the fewest real images and the first amount, by seed and fold."""
    chosen = [o for o in outcomes if (o.row.model, o.row.arm, o.test) == (model, arm, TEST)]
    if not chosen:
        return {}
    fewest = min(outcome.cell.real_count for outcome in chosen)
    amount = next(outcome.row.amount for outcome in chosen if outcome.cell.real_count == fewest)
    return {o.repetition: o for o in chosen if o.cell.real_count == fewest and o.row.amount == amount}


def _rows(
    pairs: Sequence[tuple[Outcome, Outcome]], column: str, test: Dataset
) -> tuple[tuple[str, list[Picture]], ...]:
    after, before = (_means([pair[side] for pair in pairs], column) for side in (0, 1))
    images = [image for image in test.ids if math.isfinite(after.get(image, math.nan) + before.get(image, math.nan))]
    by_change = sorted(images, key=lambda image: after[image] - before[image])
    by_score = sorted(images, key=lambda image: after[image])
    chosen = {
        "Gained most": [image for image in by_change[::-1][:SHOWN] if after[image] > before[image]],
        "Lost most": [image for image in by_change[:SHOWN] if after[image] < before[image]],
        "Best": by_score[::-1][:SHOWN] if column == DICE else [],
        "Worst": [image for image in by_score[:SHOWN] if after[image] < 1],
    }
    rows = {image: row for row, image in enumerate(test.ids)}
    drawn = _outlines(pairs[0], test, rows) if column == DICE else lambda image: []

    def picture(image: str) -> Picture:
        pixels, record = test.image(rows[image]), test.records[rows[image]]
        line = _change(column, before[image], after[image])
        lines = (line,) if column == DICE else (record.label or "no label", line)
        tile = jpeg_source(outlined(pixels, drawn(image), TILE))
        return Picture(tile, f"test image {image}, {', '.join(lines)}", image, lines)

    return tuple((title, [picture(image) for image in listed]) for title, listed in chosen.items() if listed)


def _outlines(pair: tuple[Outcome, Outcome], test: Dataset, rows: Mapping[str, int]) -> Callable[[str], list[Outline]]:
    """Return a function that gives the outlines of a test image: the truth, without synthetic cases, with them."""
    after, before = (read_masks(outcome.folder) for outcome in pair)

    def drawn(image: str) -> list[Outline]:
        masks = {"truth": test.mask(rows[image]), "before": before.get(image), "after": after.get(image)}
        return [Outline(mask, COLOURS[name]) for name, mask in masks.items() if mask is not None]

    return drawn


def _change(column: str, before: float, after: float) -> str:
    if column == DICE:
        return f"Dice {fixed(before)} to {fixed(after)}"
    return f"right in {before:.0%} to {after:.0%} of runs"


def _means(outcomes: Sequence[Outcome], column: str) -> dict[str, float]:
    """Return the mean of each image's value over runs."""
    values = [outcome.values(column) for outcome in outcomes]
    return {image: math.fsum(one.get(image, math.nan) for one in values) / len(values) for image in values[0]}
