"""Everything random about phantoms, drawn from each case's seed: single numbers, smooth textures, cells."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from ....kernels import seeded_uniform
from .arithmetic import box_mean, pixel_centres, smoothstep

NOISE_NUMBERS = 20_480
CELL_NUMBERS = 6_144
AMPLITUDE = 1.2  # of spline coefficients, so that the noise has a standard deviation of about 1/3


class Dice:
    """Uniform numbers of N cases, handed out one after another as (N, 1, 1) columns.

    Args:
        seeds: one seed a case.
        count: how many numbers a case may draw.
        stream: noise stream, see ``kernels.seeded_uniform``.
        step: step of that stream.
        device: where the numbers live.
    """

    def __init__(self, seeds: Sequence[int], count: int, *, stream: int, step: int, device: torch.device) -> None:
        self._numbers = seeded_uniform(seeds, (count,), step=step, stream=stream, device=device)
        self._drawn = 0

    def uniform(self, low: float | Tensor = 0.0, high: float | Tensor = 1.0) -> Tensor:
        """Return (N, 1, 1) numbers in [low, high); tensor bounds have that shape too."""
        number = self._numbers[:, self._drawn, None, None]
        self._drawn += 1
        return low + number * (high - low)

    def happens(self, probability: float | Tensor) -> Tensor:
        """Return (N, 1, 1) numbers, 1 with ``probability`` and else 0."""
        return (self.uniform() < probability).float()

    def bell(self) -> Tensor:
        """Return (N, 1, 1) numbers in [-1, 1) with a triangular density around 0."""
        return self.uniform() + self.uniform() - 1

    def direction(self) -> tuple[Tensor, Tensor]:
        """Return cosine and sine of an angle that covers the circle, by the rational half-angle formula."""
        half, side = self.uniform(-1.0, 1.0), 1 - 2 * self.happens(0.5)
        norm = 1 + half * half
        return side * (1 - half * half) / norm, side * 2 * half / norm


class Noise:
    """Random textures of N cases on one pixel grid, each call another one; the same at any ``size``.

    A frequency is a whole number of lattice cells in half an image edge. All cases share the lattices' geometry, so
    pixels find their lattice points by rows and columns. Waves are cubic B-splines of uniform coefficients, with mean
    0 and a standard deviation of about 1/3.

    Args:
        seeds: one seed a case.
        stream: noise stream, see ``kernels.seeded_uniform``.
        step: step of that stream.
        size: edge of the grid in pixels.
        device: where the textures live.
    """

    def __init__(self, seeds: Sequence[int], *, stream: int, step: int, size: int, device: torch.device) -> None:
        self._numbers = seeded_uniform(seeds, (NOISE_NUMBERS,), step=step, stream=stream, device=device)
        self._drawn = 0
        self._centres = pixel_centres(size, device)

    def fractal(self, frequency: int, octaves: int = 1) -> Tensor:
        """Return (N, size, size) noise of ``octaves``, each twice as fine and half as strong as the one before."""
        waves = [2.0**-octave for octave in range(octaves)]
        norm = math.sqrt(sum(wave * wave for wave in waves))
        return self._waves(frequency, [wave / norm for wave in waves])

    def scaled(self, length: Tensor, frequency: int, octaves: int = 5) -> Tensor:
        """Return noise whose coarsest waves fit ``length`` / ``frequency``, each case its own (N, 1, 1) half edges."""
        waves = []
        for octave in range(octaves):
            cells_within = frequency * 2**octave * length
            waves.append(smoothstep(0.6, 1.2, cells_within) / cells_within)
        norm = sum((wave * wave for wave in waves), start=torch.zeros_like(length)).sqrt()
        return self._waves(frequency, [wave / norm for wave in waves])

    def _waves(self, frequency: int, weights: Sequence[float | Tensor]) -> Tensor:
        """Return B-spline noise of octaves with these weights; coarse ones are refined on lattices, which is cheap."""
        lattice = weights[0] * self._coefficients(frequency)
        for weight in weights[1:]:
            frequency = 2 * frequency
            lattice = _refined(_refined(lattice, 1), 2) + weight * self._coefficients(frequency)
        index, t = _place(self._centres, frequency)
        rest, square, cube = 1 - t, t * t, t * t * t
        taps = (rest * rest * rest, 3 * cube - 6 * square + 4, 3 * (t + square - cube) + 1, cube)
        columns = lattice.index_select(2, index) * (taps[0] / 6)
        for tap in (1, 2, 3):
            columns = columns + lattice.index_select(2, index + tap) * (taps[tap] / 6)
        waves = columns.index_select(1, index) * (taps[0] / 6)[:, None]
        for tap in (1, 2, 3):
            waves = waves + columns.index_select(1, index + tap) * (taps[tap] / 6)[:, None]
        return waves

    def _coefficients(self, frequency: int) -> Tensor:
        """Return (N, points, points) coefficients of a lattice with one more point before the image and two behind."""
        points = 2 * frequency + 3
        numbers = self._numbers[:, self._drawn : self._drawn + points * points]
        self._drawn += points * points
        return AMPLITUDE * (2 * numbers.unflatten(1, (points, points)) - 1)


class Cells:
    """Cellular noise of N cases (Worley, SIGGRAPH 1996): random points, one in each cell of a square lattice.

    Its edges would alias, so they are drawn on ``factor`` times as many pixels a side and averaged. Frequencies are
    numbers of lattice cells in half an image edge; points are displaced by up to half of ``jitter`` cells.

    Args:
        seeds, stream, step, size, device: as for :class:`Noise`.
        factor: supersampling.
    """

    def __init__(
        self, seeds: Sequence[int], *, stream: int, step: int, size: int, factor: int, device: torch.device
    ) -> None:
        self._numbers = seeded_uniform(seeds, (CELL_NUMBERS,), step=step, stream=stream, device=device)
        self._drawn = 0
        self._factor = factor
        self._centres = pixel_centres(size * factor, device)

    def mesh(self, frequency: float, jitter: float, width: Tensor) -> Tensor:
        """Return (N, size, size) share of each pixel on the borders between cells, soft lines ``width`` cells wide."""
        across, down, _ = self._points(frequency, jitter)
        index, into = _place(self._centres, frequency)
        first = second = self._numbers.new_full((1, 1, 1), 8.0)
        for column in range(3):
            columns = across.index_select(2, index + column) + (column - 0.5 - into)
            heights = down.index_select(2, index + column)
            for row in range(3):
                dx = columns.index_select(1, index + row)
                dy = heights.index_select(1, index + row).add_((row - 0.5 - into)[:, None])
                squared = dx.mul_(dx).add_(dy.mul_(dy))
                second = torch.minimum(second, torch.maximum(first, squared))
                first = torch.minimum(first, squared)
        return box_mean(1 - smoothstep(0.0, width, second.sqrt() - first.sqrt()), self._factor)

    def discs(
        self, frequency: float, jitter: float, kinds: Sequence[tuple[float | Tensor, float | Tensor]]
    ) -> list[Tensor]:
        """Return for each kind the (N, size, size) share of each pixel that its soft discs cover.

        A disc around a point has a random radius of 0.1 to 0.3 cells. A kind is the interval in [0, 1) in which the
        random trait of its points lies.
        """
        across, down, traits = self._points(frequency, jitter)
        index, into = _place(self._centres, frequency)
        half = (into >= 0.5).to(torch.int64)  # discs stay within half a cell, so the four nearest cells are enough
        nearest, trait = self._numbers.new_full((1, 1, 1), 8.0), self._numbers.new_zeros((1, 1, 1))
        for column in range(2):
            lattices = [lattice.index_select(2, index + half + column) for lattice in (across, down, traits)]
            lattices[0] = lattices[0] + (half + column - 0.5 - into)
            for row in range(2):
                dx, dy, here = (lattice.index_select(1, index + half + row) for lattice in lattices)
                dy = dy.add_((half + row - 0.5 - into)[:, None])
                squared = dx.mul_(dx).add_(dy.mul_(dy))
                trait = torch.where(squared < nearest, here, trait)
                nearest = torch.minimum(nearest, squared)
        draw = trait * 11
        radius = 0.1 + 0.2 * (draw - draw.floor())
        disc = smoothstep(0.1, -0.1, nearest.sqrt() - radius)
        return [box_mean(disc * ((trait >= low) & (trait < high)), self._factor) for low, high in kinds]

    def _points(self, frequency: float, jitter: float) -> tuple[Tensor, Tensor, Tensor]:
        """Return each point's displacement across and down its cell and its trait, (N, cells, cells)."""
        edge = math.ceil(2 * frequency) + 3
        numbers = self._numbers[:, self._drawn : self._drawn + 3 * edge * edge]
        self._drawn += 3 * edge * edge
        across, down, traits = numbers.unflatten(1, (3, edge, edge)).unbind(1)
        return jitter * (across - 0.5), jitter * (down - 0.5), traits


def _refined(lattice: Tensor, axis: int) -> Tensor:
    """Return the coefficients of the same cubic B-spline on a lattice of half the step along ``axis``."""
    low, middle, high = (lattice.narrow(axis, start, lattice.shape[axis] - 2) for start in (0, 1, 2))
    even, odd = (low + 6 * middle + high) / 8, (low + middle) / 2
    last = (middle + high).narrow(axis, middle.shape[axis] - 1, 1) / 2
    return torch.cat([torch.stack([odd, even], dim=axis + 1).flatten(axis, axis + 1), last], dim=axis)


def _place(centres: Tensor, frequency: float) -> tuple[Tensor, Tensor]:
    """Return the lattice cell of each row (or column) of pixels and how far the row lies into that cell."""
    place = (centres + 1) * frequency
    low = place.floor()
    return low.to(torch.int64), place - low
