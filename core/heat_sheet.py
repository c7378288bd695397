"""Draws what classifiers look at: a row a case, its image, and for every classifier its heat maps laid over it."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from .explaining import Explained, ExplainedCase, Explanation, Heat, enlarged
from .pictures import FAINT_INK, FONT_SIZE, GAP, INK, LINE_HEIGHT, MARGIN, PAPER, thumbnail, write_line

TITLES = {"gradcam": "GradCAM", "saliency": "Saliency", "occlusion": "Occlusion"}
WRONG = (176, 42, 42)
COLOURS = "inferno"
OPACITY = 0.75
BRIGHTEST = 99.0
GROUP_GAP = 24


def heat_sheet(found: Explained, *, tile: int = 160) -> Image.Image:
    """Draw all cases of ``found``, images under their masks' outlines; ``tile`` is the edge of a picture in pixels.

    Every map is scaled to its own 99th percentile, so that its colours tell where, not how much.
    """
    methods, groups = len(found.methods), len(found.checkpoints)
    group_width = methods * (tile + GAP) - GAP
    lefts = [MARGIN + tile + GROUP_GAP + number * (group_width + GROUP_GAP) for number in range(groups)]
    top, step = MARGIN + 3 * LINE_HEIGHT + GAP, tile + 2 * LINE_HEIGHT + GAP
    size = lefts[-1] + group_width + MARGIN, top + len(found.cases) * step + MARGIN
    sheet = Image.new("RGB", size, PAPER)
    write_line(sheet, _title(found), (MARGIN, MARGIN - 2), size[0] - 2 * MARGIN, INK, FONT_SIZE + 2)
    write_line(sheet, "image", (MARGIN, top - LINE_HEIGHT - 2), tile, FAINT_INK, FONT_SIZE)
    for left, name in zip(lefts, found.checkpoints, strict=True):
        write_line(sheet, name, (left, top - 2 * LINE_HEIGHT - 2), group_width, INK, FONT_SIZE)
        for column, method in enumerate(found.methods):
            place = left + column * (tile + GAP), top - LINE_HEIGHT - 2
            write_line(sheet, TITLES.get(method, method), place, tile, FAINT_INK, FONT_SIZE)
    for number, case in enumerate(found.cases):
        _draw_row(sheet, case, found.methods, lefts, top + number * step, tile)
    return sheet


def _title(found: Explained) -> str:
    notice = ", procedural phantoms" if found.phantom else ""
    return f"{found.dataset}{notice}: {len(found.cases)} of {found.total:,} cases"


def _draw_row(
    sheet: Image.Image, case: ExplainedCase, methods: tuple[str, ...], lefts: list[int], upper: int, tile: int
) -> None:
    sheet.paste(thumbnail(case.image, case.mask, tile), (MARGIN, upper))
    under = upper + tile + 3
    write_line(sheet, case.label or "no label", (MARGIN + 1, under), tile - 2, INK, FONT_SIZE)
    write_line(sheet, case.image_id, (MARGIN + 1, under + LINE_HEIGHT), tile - 2, FAINT_INK, FONT_SIZE)
    for left, said in zip(lefts, case.explanations, strict=True):
        for column, method in enumerate(methods):
            picture = overlaid(case.image, said.heat[method], tile)
            sheet.paste(thumbnail(picture, None, tile), (left + column * (tile + GAP), upper))
        wrong = case.label is not None and said.predicted != case.label
        width = len(methods) * (tile + GAP) - GAP - 2
        write_line(sheet, _verdict(said, case), (left + 1, under), width, WRONG if wrong else INK, FONT_SIZE)


def _verdict(said: Explanation, case: ExplainedCase) -> str:
    judged = "" if case.label is None else " (right)" if said.predicted == case.label else " (wrong)"
    return f"{said.predicted} {said.probability:.2f}{judged}"


def overlaid(image: NDArray[np.uint8], heat: Heat, tile: int) -> NDArray[np.uint8]:
    """Return an (H, W, 3) uint8 image, its longer edge ``tile`` pixels, with (h, w) heat laid over it."""
    from matplotlib import colormaps

    scale = tile / max(image.shape[:2])
    size = max(round(image.shape[1] * scale), 1), max(round(image.shape[0] * scale), 1)
    picture = np.asarray(Image.fromarray(image).resize(size, Image.Resampling.LANCZOS), np.float32) / 255
    fine = enlarged(heat, size)
    brightest = float(np.percentile(fine, BRIGHTEST)) or float(fine.max())
    strength = np.clip(fine / brightest, 0, 1) if brightest > 0 else np.zeros_like(fine)
    colours = colormaps[COLOURS](strength)[..., :3]
    opacity = OPACITY * strength[..., None]
    return ((picture * (1 - opacity) + colours * opacity) * 255).round().astype(np.uint8)
