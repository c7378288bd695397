"""Dark thin structures of a dermoscopic image: hairs, and the ruler with its ticks."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.functional import affine_grid, avg_pool2d, conv2d, grid_sample, max_pool2d, pad

from .smoothing import gaussian_blur

RIDGE_SCALE = 1.4
"""Standard deviation in pixels at which ridges are sought; lines of 2 to 5 pixels answer."""
LINE = 21
"""Length in pixels along which a ridge must go straight to count as a line."""
DIRECTIONS = 12

HAIR_STRENGTH = 0.7
"""Ridge, of a pixel and on the mean along its line, from which it may be hair."""
HAIR_DIRECTION = 2.2
"""How many times stronger a hair must be along its direction than on the mean of all directions."""

RULER_ANGLES = 36
RULER_WINDOW = 96
"""Length in pixels of the piece of a ruler that must be visible."""
WINDOW_STEP = 16
ROW_STEP = 2
CANDIDATES = 128
"""Straight pieces of line in each image that are looked at for ticks."""
TICK_PERIODS = (5, 20)
"""Distances in pixels between ticks that are tried."""
TICK_ROWS = (-6, -5, -4, 4, 5, 6)
"""Distances in pixels from a ruler's line at which its ticks are sought."""
MIN_TICK_VARIANCE = 0.003
FULL_RIDGE = 0.8
"""Strength, in L* per pixel squared at the ridge's scale, from which a pixel is wholly line."""


def dark_ridges(lightness: Tensor) -> Tensor:
    """Return how much each pixel of (N, 1, H, W) L* lies in a dark line, 0 where it does not.

    The larger eigenvalue of the scale-normalised Hessian less the smaller one's magnitude, so that dots answer weakly.
    Source: Lindeberg: "Edge detection and ridge detection with automatic scale selection", IJCV 1998.
    """
    p = pad(gaussian_blur(lightness, RIDGE_SCALE), (1,) * 4, mode="replicate")
    centre = p[:, :, 1:-1, 1:-1]
    xx = p[:, :, 1:-1, 2:] + p[:, :, 1:-1, :-2] - 2 * centre
    yy = p[:, :, 2:, 1:-1] + p[:, :, :-2, 1:-1] - 2 * centre
    xy = (p[:, :, 2:, 2:] + p[:, :, :-2, :-2] - p[:, :, 2:, :-2] - p[:, :, :-2, 2:]) / 4
    mean, difference = (xx + yy) / 2, ((xx - yy) ** 2 / 4 + xy**2).sqrt()
    return ((mean + difference) - (mean - difference).abs()).clamp_min(0) * RIDGE_SCALE**2


def find_strands(ridges: Tensor) -> Tensor:
    """Return where (N, 1, H, W) ridges go straight in one direction, as hairs do, and rulers, and pen strokes."""
    along = conv2d(ridges.clamp_max(3), _segments(ridges), padding=LINE // 2)
    best, mean = along.amax(1, keepdim=True), along.mean(1, keepdim=True)
    return (best > HAIR_STRENGTH) & (best > HAIR_DIRECTION * mean) & (ridges > HAIR_STRENGTH)


def _segments(like: Tensor) -> Tensor:
    offsets = torch.arange(LINE, device=like.device, dtype=like.dtype) - LINE // 2
    angles = torch.arange(DIRECTIONS, device=like.device, dtype=like.dtype)[:, None, None] * (math.pi / DIRECTIONS)
    along = offsets * angles.cos() + offsets[:, None] * angles.sin()
    across = offsets[:, None] * angles.cos() - offsets * angles.sin()
    weights = (1 - across.abs()).clamp_min(0) * (along.abs() <= LINE // 2 + 0.25)
    return (weights / weights.sum((1, 2), keepdim=True))[:, None]


@dataclass(frozen=True)
class Ruler:
    """The piece of each image that most resembles a ruler.

    Attributes:
        score: (N,) product of how unbroken its line is and how periodic the marks beside it are, 0 to 1.
        distance: (N, 1, H, W) distance in pixels of each pixel from its line, endlessly prolonged.
    """

    score: Tensor
    distance: Tensor


def find_ruler(ridges: Tensor) -> Ruler:
    """Look for a straight dark line with periodic dark ticks on one side in (N, 1, S, S) ridges."""
    count, edge = len(ridges), ridges.shape[-1]
    angles = torch.arange(RULER_ANGLES, device=ridges.device, dtype=ridges.dtype) * (math.pi / RULER_ANGLES)
    # One tall grid turns the images by all angles; every second row is enough for lines three pixels wide.
    grid = _turned(angles, edge).view(1, -1, edge, 2).expand(count, -1, -1, -1)
    turned = grid_sample(ridges, grid, align_corners=False).div(FULL_RIDGE).clamp_max(1)
    turned = turned.view(count * RULER_ANGLES, 1, edge // ROW_STEP, edge)
    unbroken = avg_pool2d(max_pool2d(turned, (3, 1), 1, (1, 0)), (1, RULER_WINDOW), (1, WINDOW_STEP))
    windows, rows = unbroken.shape[3], unbroken.shape[2]
    line, place = unbroken.view(count, -1).topk(CANDIDATES)
    start, row, angle = place % windows * WINDOW_STEP, place // windows % rows, place // (windows * rows)
    columns = start[..., None, None] + torch.arange(RULER_WINDOW, device=ridges.device)
    case = torch.arange(count, device=ridges.device)[:, None]
    lanes = turned.view(count, RULER_ANGLES, rows, edge)
    ticks = []
    for offset in TICK_ROWS:
        beside = (row[..., None] + torch.tensor([-1, 0, 1], device=ridges.device) + offset // ROW_STEP)[..., None]
        marks = lanes[case[..., None, None], angle[..., None, None], beside.clamp(0, rows - 1), columns]
        ticks.append(_periodicity(marks.mean(2)))
    score, best = (torch.stack(ticks).amax(0).clamp_min(0) * line).max(1)
    best = best[:, None]
    chosen_row = row.gather(1, best)[:, 0].to(ridges.dtype) * ROW_STEP
    return Ruler(score, _distance(chosen_row, angles[angle.gather(1, best)[:, 0]], edge))


def _turned(angles: Tensor, edge: int) -> Tensor:
    matrix = torch.stack([angles.cos(), -angles.sin(), angles.sin(), angles.cos()], 1).view(-1, 2, 2)
    affine = torch.cat([matrix, torch.zeros_like(matrix[:, :, :1])], 2)
    return affine_grid(affine, [len(angles), 1, edge, edge], align_corners=False)[:, ::ROW_STEP]


def _distance(row: Tensor, angle: Tensor, edge: int) -> Tensor:
    offsets = torch.arange(edge, device=row.device, dtype=row.dtype) - (edge - 1) / 2
    cos, sin = angle.cos()[:, None, None], angle.sin()[:, None, None]
    down = offsets[:, None] * cos - offsets * sin
    return (down - (row - (edge - 1) / 2)[:, None, None]).abs()[:, None]


def _periodicity(marks: Tensor) -> Tensor:
    """Return how periodic (..., L) signals are: the autocorrelation at one and two periods above that at half a one."""
    length = marks.shape[-1]
    centred = marks - marks.mean(-1, keepdim=True)
    power = torch.fft.rfft(centred, n=2 * length).abs() ** 2
    correlation = torch.fft.irfft(power, n=2 * length)[..., :length]
    varied = correlation[..., 0] / length > MIN_TICK_VARIANCE
    lags = torch.arange(length, device=marks.device)
    correlation = correlation / correlation[..., :1].clamp_min(1e-6) * (length / (length - lags))
    periods = lags[TICK_PERIODS[0] : TICK_PERIODS[1] + 1]
    repeated = torch.minimum(correlation[..., periods], correlation[..., 2 * periods])
    between = correlation[..., (periods + 1) // 2].clamp_min(0)
    return (repeated - between).amax(-1) * varied
