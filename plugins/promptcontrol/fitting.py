"""Shapes like those of real lesions: drawn from measured ones, and drawn again until the border is as rough."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from ...kernels import seeded_normal
from .drawing import Finish, draw
from .shapes import Shapes, measure

FITTED = 256
"""Edge in pixels at which real masks are measured and deformations are found."""
STRONGEST = 1.0
"""Largest deformation in radii that is tried."""
ROUNDS = 8
MOST_ELONGATED = 1.8
"""Largest logarithm of an elongation that is drawn: axes as 6 to 1."""


def drawn_shapes(
    table: Tensor, choice: Tensor, seeds: Sequence[int], jitter: float, *, stream: int, step: int
) -> Shapes:
    """Draw the shapes of N lesions after the rows of ``table``, which are real ones (a smoothed bootstrap).

    Each case takes a row and adds noise of ``jitter`` standard deviations of the column to it; areas and centres as
    logits, elongations as logarithms.

    Args:
        table: (M, 6), see :meth:`Shapes.table`.
        choice: (N,) in [0, 1), which row each case takes.
        stream, step: where in the cases' random numbers the noise is drawn.
    """
    real = _unbounded(table)
    rows = (choice.double() * len(table)).long()
    spread = real.std(0, correction=0)
    drawn = real[rows] + jitter * spread * seeded_normal(seeds, (6,), stream=stream, step=step, device=table.device)
    return _bounded(drawn)


def _unbounded(table: Tensor) -> Tensor:
    area, x, y, elongation, angle, roughness = table.unbind(1)
    return torch.stack((area.logit(1e-4), x.logit(1e-4), y.logit(1e-4), elongation.log(), angle, roughness), dim=1)


def _bounded(values: Tensor) -> Shapes:
    area, x, y, elongation, angle, roughness = values.unbind(1)
    centre = torch.stack((x.sigmoid(), y.sigmoid()), dim=1)
    return Shapes(area.sigmoid(), centre, elongation.abs().exp(), angle, roughness)


def matched(target: Shapes, fields: Tensor, finish: Finish) -> tuple[Shapes, Tensor]:
    """Return what to :func:`draw`, and how strongly deformed (N,), so that the masks have the ``target``'s shapes.

    Deforming an ellipse, and cutting it off at the image's edge, changes its moments; so each round draws, measures and
    moves centre and axes by what is missing, while the deformation is found by halving the interval from none to
    :data:`STRONGEST`.
    """
    aimed = target
    low = torch.zeros_like(target.area)
    high = torch.full_like(low, STRONGEST)
    for _ in range(ROUNDS):
        middle = (low + high) / 2
        made = measure(draw(aimed, middle, fields, FITTED, finish))
        smooth = made.roughness < target.roughness
        low, high = torch.where(smooth, middle, low), torch.where(smooth, high, middle)
        aimed = _corrected(aimed, target, made)
    return aimed, (low + high) / 2


def _corrected(aimed: Shapes, target: Shapes, made: Shapes) -> Shapes:
    """Move ``aimed`` by what ``made`` lacks of ``target``; a lesion that came out empty stays."""
    centre = (aimed.centre + (target.centre - made.centre).nan_to_num()).clamp(0, 1)
    axes = _axes(aimed) + (_axes(target) - _axes(made)).nan_to_num()
    elongation = axes.norm(dim=1).clamp(max=MOST_ELONGATED).exp()
    return Shapes(aimed.area, centre, elongation, torch.atan2(axes[:, 1], axes[:, 0]) / 2, aimed.roughness)


def _axes(shapes: Shapes) -> Tensor:
    """Return (N, 2) the logarithm of the elongation, in the direction of twice the angle: 0 for a circle."""
    direction = torch.stack(((2 * shapes.angle).cos(), (2 * shapes.angle).sin()), dim=1)
    return shapes.elongation.log()[:, None] * direction
