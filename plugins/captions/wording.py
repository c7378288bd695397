"""From measured attributes to one clinical sentence: thresholds, words and their variants.

Every threshold is ours unless a source is named; docs/derm-prompt.md has them as a table with the errors they make.
A variant never changes a fact: each phrase below belongs to one level of one attribute.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import torch

from ...kernels import seeded_uniform, stream_of
from .colours import COLOURS
from .marks import RULER_SCORE

if TYPE_CHECKING:
    from torch import Tensor

    from .attributes import Attributes

Levels = tuple[tuple[float, str], ...]
"""Upper limits, each with the level below it, in rising order."""
TOP = float("inf")

LEVELS: dict[str, Levels] = {
    "area": ((0.03, "tiny"), (0.1, "small"), (0.3, "medium"), (0.6, "large"), (TOP, "huge")),
    "elongation": ((1.2, "round"), (1.7, "oval"), (TOP, "elongated")),
    "irregularity": ((0.03, "regular"), (0.07, "uneven"), (TOP, "irregular")),
    # Chardon et al. 1991; Del Bino et al. 2006.
    "skin_tone": (
        (-30, "dark"),
        (10, "brown"),
        (28, "tan"),
        (41, "intermediate"),
        (55, "light"),
        (TOP, "very light"),
    ),
    "hair": ((0.015, "none"), (0.045, "few"), (TOP, "many")),
    "ruler": ((RULER_SCORE, "none"), (TOP, "ruler")),
    "ink": ((0.0025, "none"), (TOP, "ink")),
    "marker": ((0.004, "none"), (TOP, "marker")),
}
FOLD = 0.08
"""Share left uncovered by folding from which a lesion is asymmetric in that axis."""
OFF_CENTRE = 0.07
"""Distance of the centroid from the middle, in image edges, from which a side is named."""
CUT = 0.02
"""Share of the outermost pixels from which a lesion is cut by the image's edge."""
OVERFLOW = 0.25
"""Share of the outermost pixels from which a lesion's shape and place cannot be seen."""
HIDDEN = {
    "cut": ("asymmetry", "irregularity"),
    "overflow": ("elongation", "asymmetry", "irregularity", "place"),
}
"""What cannot be said of a lesion since part of it lies outside the image."""
DARK_CORNERS = 0.65
"""Lightness of the corners over the skin's below which they are dark."""
MAIN_COLOUR = 0.15
"""Share of the lesion from which a colour is a main one."""
FURTHER_COLOUR = 0.05
"""Share of the lesion from which a further colour is worth a word."""
SKIN_COLOURED = 0.85
"""Share of the lesion above which it has the colour of the skin."""

PHRASES: dict[tuple[str, str], tuple[str, ...]] = {
    ("area", "tiny"): ("very small", "tiny"),
    ("area", "small"): ("small",),
    ("area", "medium"): ("medium-sized", "mid-sized"),
    ("area", "large"): ("large",),
    ("area", "huge"): ("very large", "extensive"),
    ("elongation", "round"): ("round", "roundish"),
    ("elongation", "oval"): ("oval", "oval-shaped"),
    ("elongation", "elongated"): ("elongated",),
    ("irregularity", "regular"): ("a regular border", "a smooth border", "smooth, even margins"),
    ("irregularity", "uneven"): ("a slightly irregular border", "slightly irregular margins"),
    ("irregularity", "irregular"): ("an irregular border", "irregular margins", "a ragged border"),
    ("asymmetry", "symmetric"): ("symmetric", "symmetrical in shape"),
    ("asymmetry", "one"): ("asymmetric in one axis", "asymmetrical in one axis"),
    ("asymmetry", "both"): ("asymmetric in both axes", "asymmetrical in both axes"),
    ("place", "centre"): ("in the centre", "centrally placed"),
    ("place", "left"): ("left of the centre", "to the left of the centre"),
    ("place", "right"): ("right of the centre", "to the right of the centre"),
    ("place", "upper"): ("above the centre", "above the middle"),
    ("place", "lower"): ("below the centre", "below the middle"),
    ("place", "upper left"): ("towards the upper left", "upper left of the centre"),
    ("place", "upper right"): ("towards the upper right", "upper right of the centre"),
    ("place", "lower left"): ("towards the lower left", "lower left of the centre"),
    ("place", "lower right"): ("towards the lower right", "lower right of the centre"),
    ("cut", "cut"): ("reaching the edge of the image", "cut off by the image edge"),
    ("cut", "overflow"): ("extending beyond the image", "filling the image beyond its edges"),
    ("skin_tone", "dark"): ("on dark skin",),
    ("skin_tone", "brown"): ("on brown skin",),
    ("skin_tone", "tan"): ("on tan skin", "on tanned skin"),
    ("skin_tone", "intermediate"): ("on skin of intermediate tone", "on intermediate skin"),
    ("skin_tone", "light"): ("on light skin",),
    ("skin_tone", "very light"): ("on very light skin", "on very fair skin"),
    ("hair", "few"): ("a few hairs", "some hairs"),
    ("hair", "many"): ("many hairs", "dense hair"),
    ("ruler", "ruler"): ("a ruler", "a scale bar with ticks"),
    ("ink", "ink"): ("violet ink marks", "purple pen marks"),
    ("marker", "marker"): ("a coloured marker", "a colour chart"),
    ("corners", "dark"): ("dark corners", "dark image corners"),
}
SPECKS = ("with some", "with areas of")
SUBJECTS = ("lesion", "skin lesion")


def level_of(values: Tensor, levels: Levels) -> list[str | None]:
    """Return the level of each of (N,) values; None for NaN."""
    limits = torch.tensor([limit for limit, _ in levels[:-1]], device=values.device, dtype=values.dtype)
    places = torch.bucketize(values, limits, right=True).tolist()
    known = values.isfinite().tolist()
    return [levels[place][1] if measured else None for place, measured in zip(places, known, strict=True)]


def facts(attributes: Attributes) -> list[dict[str, str]]:
    """Return for each case the level of every attribute that is worth a word, in the order of the sentence.

    Colours stand under ``colours`` (main ones, largest first, joined by commas) and ``specks`` (the others).
    """
    columns = {name: level_of(getattr(attributes, name), levels) for name, levels in LEVELS.items()}
    columns["asymmetry"] = _asymmetry(attributes.asymmetry)
    columns["place"] = _place(attributes.centre)
    columns["cut"] = level_of(attributes.edge, ((CUT, "none"), (OVERFLOW, "cut"), (TOP, "overflow")))
    columns["corners"] = level_of(attributes.corners, ((DARK_CORNERS, "dark"), (TOP, "none")))
    colours = [_colours(shares) for shares in attributes.colours.tolist()]
    columns["colours"], columns["specks"] = [main for main, _ in colours], [further for _, further in colours]
    order = ("area", "elongation", "colours", "specks", "asymmetry", "irregularity", "place", "cut")
    order += ("skin_tone", "hair", "ruler", "ink", "marker", "corners")
    rows = []
    for row in range(len(attributes)):
        known = {name: columns[name][row] for name in order}
        if known["cut"] in HIDDEN:
            known |= dict.fromkeys(HIDDEN[known["cut"]])
        rows.append({name: level for name, level in known.items() if level is not None and level != "none"})
    return rows


def _asymmetry(folds: Tensor) -> list[str | None]:
    axes = (folds > FOLD).sum(1).float().where(folds.isfinite().all(1), torch.nan)
    return level_of(axes, ((0.5, "symmetric"), (1.5, "one"), (TOP, "both")))


def _place(centre: Tensor) -> list[str | None]:
    places: list[str | None] = []
    for x, y in (centre - 0.5).tolist():
        row = "upper" if y < -OFF_CENTRE else "lower" if y > OFF_CENTRE else ""
        column = "left" if x < -OFF_CENTRE else "right" if x > OFF_CENTRE else ""
        places.append(None if x != x else f"{row} {column}".strip() or "centre")
    return places


def _colours(shares: list[float]) -> tuple[str | None, str | None]:
    """Return the main and the further colours of one lesion."""
    if shares[0] != shares[0]:
        return None, None
    ranked = sorted(zip(shares[:-1], COLOURS, strict=True), reverse=True)
    main = [name for share, name in ranked if share >= MAIN_COLOUR]
    if shares[-1] > SKIN_COLOURED or not main:
        main = ["skin-coloured"]
    further = [name for share, name in ranked if FURTHER_COLOUR <= share < MAIN_COLOUR]
    return ", ".join(main), ", ".join(further) or None


def describe(
    attributes: Attributes, seeds: Sequence[int], *, varied: bool = True, stream: str = "derm-prompt"
) -> list[str]:
    """Return one sentence a case; with ``varied`` the seed chooses between wordings of the same facts.

    The choice is a function of the seed and of the name ``stream`` alone. Clauses stand in falling order of
    importance, so that a sentence can be shortened from its end.
    """
    rows = facts(attributes)
    keys = list(PHRASES)
    names = list(dict.fromkeys(name for name, _ in keys))
    draws = seeded_uniform(list(seeds), (len(names) + 2,), stream=stream_of(stream)).tolist()
    sentences = []
    for row, dice in zip(rows, draws, strict=True):
        chance = dict(zip([*names, "specks", "subject"], dice if varied else [0.0] * len(dice), strict=True))
        sentences.append(_sentence(row, chance))
    return sentences


def _choose(options: Sequence[str], chance: float) -> str:
    return options[int(chance * len(options))]


def _sentence(known: dict[str, str], chance: dict[str, float]) -> str:
    def phrase(name: str) -> str | None:
        return _choose(PHRASES[name, known[name]], chance[name]) if name in known else None

    head = [phrase("area"), phrase("elongation"), _choose(SUBJECTS, chance["subject"])]
    subject = " ".join(filter(None, head))
    article = "An" if subject[0] in "aeio" else "A"
    clauses = [f"{article} {subject}{_coloured(known, chance)}"]
    form = [phrase("asymmetry"), f"with {border}" if (border := phrase("irregularity")) else None]
    clauses.append(" ".join(filter(None, form)))
    clauses += [phrase("place") or "", phrase("cut") or "", phrase("skin_tone") or ""]
    marks = [mark for name in ("hair", "ruler", "ink", "marker", "corners") if (mark := phrase(name))]
    clauses.append(f"with {_listed(marks)}" if marks else "")
    return ", ".join(filter(None, clauses)) + "."


def _coloured(known: dict[str, str], chance: dict[str, float]) -> str:
    if "colours" not in known:
        return ""
    main = _listed(known["colours"].split(", "))
    text = f", {main}"
    if "specks" in known:
        text += f" {_choose(SPECKS, chance['specks'])} {_listed(known['specks'].split(', '))}"
    return text


def _listed(items: Sequence[str]) -> str:
    return items[0] if len(items) == 1 else f"{', '.join(items[:-1])} and {items[-1]}"
