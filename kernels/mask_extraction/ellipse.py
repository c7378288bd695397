"""The elliptical structuring element, as OpenCV's getStructuringElement(MORPH_ELLIPSE) draws it."""

from __future__ import annotations

import math


def half_widths(diameter: int) -> list[int]:
    """For each row of the element of odd `diameter`: how far it reaches to either side of its middle."""
    radius = diameter // 2
    inverse = 1.0 / (radius * radius) if radius else 0.0
    # Python rounds half to even, as OpenCV's cvRound does.
    return [round(radius * math.sqrt((radius * radius - y * y) * inverse)) for y in range(-radius, radius + 1)]
