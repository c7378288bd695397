"""Scales of the report's charts: which part of the number line is shown, and where its ticks stand."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from .statistics import Numbers, finite
from .wording import number

LOG_RATIO = 10.0
CROWDED = 0.05
OUTER_SHARE = 0.005
OUTLIERS_STRETCH = 1.6
NARROWEST = 1e-9
STEPS = (1.0, 2.0, 2.5, 5.0, 10.0)


@dataclass(frozen=True)
class Tick:
    """A labelled place on an axis, ``at`` in [0, 1]."""

    at: float
    label: str


@dataclass(frozen=True)
class Axis:
    """The interval from ``low`` to ``high``, linear or logarithmic."""

    low: float
    high: float
    log: bool = False

    def at(self, values: float | Numbers) -> Numbers:
        """Return places in [0, 1]; values beyond the axis come to stand at its ends."""
        inside = np.clip(np.asarray(values, np.float64), self.low, self.high)
        if self.log:
            return np.log(inside / self.low) / math.log(self.high / self.low)
        return (inside - self.low) / (self.high - self.low)

    def hides(self, values: Numbers) -> int:
        """Return how many values lie beyond the axis."""
        return int(((values < self.low) | (values > self.high)).sum())

    def ticks(self, wanted: int = 5) -> list[Tick]:
        """Return about ``wanted`` ticks at round numbers."""
        values = _log_ticks(self.low, self.high, wanted) if self.log else _linear_ticks(self.low, self.high, wanted)
        digits, labels = 4, [number(value, 4) for value in values]
        while len({*labels}) < len(labels) and digits < 16:
            digits += 1
            labels = [number(value, digits) for value in values]
        return [Tick(float(self.at(value)), label) for value, label in zip(values, labels, strict=True)]


def axis_for(*samples: Numbers, marks: Sequence[float] = (), allow_log: bool = True, trim: bool = True) -> Axis:
    """Return an axis that shows ``samples`` and ``marks``.

    It is logarithmic where positive values span a wide range and a quarter of them would crowd at its lower end. With
    ``trim`` the outermost half percent of the values lies beyond its ends where they would stretch it much.
    """
    values = finite(np.concatenate([*samples, np.empty(0)]))
    if not len(values):
        return Axis(0.0, 1.0)
    low, high = _bounds(values, trim)
    low, high = min(low, *marks, high), max(high, *marks, low)
    if high - low <= max(NARROWEST * max(abs(low), abs(high)), 1e-200):
        margin = abs(low) * 0.1 or 0.5
        return Axis(low - margin, high + margin)
    crowded = np.quantile(values, 0.25) - low < CROWDED * (high - low)
    return Axis(low, high, log=bool(allow_log and crowded and low > 1e-100 and high < 1e100 and high / low > LOG_RATIO))


def _bounds(values: Numbers, trim: bool) -> tuple[float, float]:
    low, high = float(values.min()), float(values.max())
    bulk = np.quantile(values, (OUTER_SHARE, 1 - OUTER_SHARE), method="nearest")
    stretched = high - low > OUTLIERS_STRETCH * (bulk[1] - bulk[0])
    return (float(bulk[0]), float(bulk[1])) if trim and stretched else (low, high)


def from_zero(top: float) -> Axis:
    """Return a linear axis from 0 to just above ``top``."""
    return Axis(0.0, top * 1.08 if top > 0 else 1.0)


def _linear_ticks(low: float, high: float, wanted: int) -> list[float]:
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(factor for factor in STEPS if factor * power >= rough * (1 - 1e-9)) * power
    first, last = math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9)
    return [round(position * step, 12 - math.floor(math.log10(step))) for position in range(first, last + 1)]


def _log_ticks(low: float, high: float, wanted: int) -> list[float]:
    powers = range(math.floor(math.log10(low)), math.ceil(math.log10(high)) + 1)
    every = max(1, math.ceil(math.log10(high / low) / wanted))
    factors = (1.0,) if math.log10(high / low) > 2.5 else (1.0, 2.0, 5.0)
    values = [factor * 10.0**power for power in powers if power % every == 0 for factor in factors]
    return [value for value in values if low * (1 - 1e-9) <= value <= high * (1 + 1e-9)]
