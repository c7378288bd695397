"""Skin colours by individual typology angle (ITA), the usual measure of constitutional pigmentation."""

from __future__ import annotations

import math

import torch
from torch import Tensor

# ITA in degrees with the a* and b* that we give it; L* follows from ITA = atan((L* - 50) / b*) (Chardon et al. 1991).
TONES = ((-60, 11, 11), (-30, 13, 17), (0, 14, 21), (20, 14, 21), (40, 14, 18), (55, 13, 16), (70, 12, 12.5))


def skin_colour(ita: Tensor) -> Tensor:
    """Return (N, 3, 1, 1) sRGB colours in [0, 1] for angles (N, 1, 1) in degrees within [-60, 70]."""
    angles = [tone[0] for tone in TONES]
    colours = [torch.tensor(_tone(*tone), device=ita.device).view(1, 3, 1, 1) for tone in TONES]
    angle, colour = ita[:, None], colours[0]
    for low, high, start, end in zip(angles, angles[1:], colours, colours[1:], strict=False):
        colour = colour + ((angle - low) / (high - low)).clamp(0, 1) * (end - start)
    return colour


def _tone(ita: float, a: float, b: float) -> tuple[float, float, float]:
    return lab_to_srgb(50 + b * math.tan(math.radians(ita)), a, b)


def lab_to_srgb(lightness: float, a: float, b: float) -> tuple[float, float, float]:
    """Return sRGB in [0, 1] of a CIE L*a*b* colour under D65 (IEC 61966-2-1), clipped to the gamut."""
    y = (lightness + 16) / 116
    x, y, z = (
        white * (f**3 if f > 6 / 29 else 3 * (6 / 29) ** 2 * (f - 4 / 29))
        for white, f in ((0.95047, y + a / 500), (1.0, y), (1.08883, y - b / 200))
    )
    linear = (
        3.2404542 * x - 1.5371385 * y - 0.4985314 * z,
        -0.9692660 * x + 1.8760108 * y + 0.0415560 * z,
        0.0556434 * x - 0.2040259 * y + 1.0572252 * z,
    )
    red, green, blue = (
        min(max(12.92 * c if c <= 0.0031308 else 1.055 * c ** (1 / 2.4) - 0.055, 0.0), 1.0) for c in linear
    )
    return red, green, blue
