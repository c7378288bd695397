"""Turns painted skin into a phantom photograph: hairs, ruler, gel bubbles, light, optics and sensor."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .arithmetic import coverage, smoothstep, soft_blur
from .noise import Dice, Noise
from .outline import Outline

if TYPE_CHECKING:
    from ..phantom import Look

HAIRS = 12
BUBBLES = 4
BLUR_LIMIT = 0.016


def photograph(image: Tensor, x: Tensor, y: Tensor, outline: Outline, look: Look, dice: Dice, noise: Noise) -> Tensor:
    """Return ``image`` (N, 3, H, W) with everything that lies on the skin and in the light's way.

    ``x`` (1, 1, W) and ``y`` (1, H, 1) are pixel centres; ``dice`` and ``noise`` draw what belongs to the photograph.
    """
    image = _ruler(image, x, y, look, dice)
    image = _hairs(image, x, y, look, dice)
    image = _bubbles(image, x, y, look, dice)
    image = _light(image, x, y, look, dice, noise)
    return _rim(image, x, y, outline, look, dice)


def expose(image: Tensor, look: Look, dice: Dice, grain: Tensor) -> Tensor:
    """Return ``image`` defocused, with sensor noise made of ``grain`` (N, 2, H, W), uniform numbers, within [0, 1]."""
    size = image.shape[-1]
    radius = dice.uniform(0.2, 1.0) * (BLUR_LIMIT * look.blur * size / 2)
    image = soft_blur(image, radius[:, None].clamp(min=0.5), int(BLUR_LIMIT * look.blur * size / 2) + 1)
    strength = dice.uniform(0.01, 0.04)[:, None] * look.noise
    return (image + strength * (grain[:, :1] + grain[:, 1:] - 1)).clamp(0, 1)


def _pitch(x: Tensor) -> float:
    return 2 / x.shape[-1]


def _hairs(image: Tensor, x: Tensor, y: Tensor, look: Look, dice: Dice) -> Tensor:
    """Curved hairs that mostly lie one way, each a cubic in its own frame, darker or lighter brown."""
    count = dice.happens(look.hair) * dice.uniform(1, HAIRS + 1)
    growth, shade, pitch = dice.direction(), dice.uniform(0.05, 0.45), _pitch(x)
    cover = torch.zeros_like(image[:, 0])
    for hair in range(HAIRS):
        root_x, root_y, bend = dice.uniform(-1, 1), dice.uniform(-1, 1), dice.bell()
        curve, twist, length = dice.bell() * 0.5, dice.bell() * 0.4, dice.uniform(0.4, 1.3)
        width, darkness = dice.uniform(0.004, 0.011), dice.uniform(0.55, 0.95)
        rows = torch.nonzero(count[:, 0, 0] > hair + 0.5)[:, 0]
        if len(rows) == 0:
            continue
        columns = (root_x, root_y, bend, curve, twist, length, width, darkness, *growth)
        root_x, root_y, bend, curve, twist, length, width, darkness, cosine, sine = (c[rows] for c in columns)
        cosine, sine = cosine - bend * sine, sine + bend * cosine
        norm = (cosine * cosine + sine * sine).sqrt()
        cosine, sine = cosine / norm, sine / norm
        dx, dy = x - root_x, y - root_y
        along, across = cosine * dx + sine * dy, cosine * dy - sine * dx
        slope = 2 * curve * along + 3 * twist * along * along
        offset = across - along * along * (curve + twist * along)
        distance = offset.abs() / (1 + slope * slope).sqrt()
        taper = (1 - (along / length).square()).clamp(min=0)
        strand = darkness * coverage(distance, width * taper, pitch)
        cover[rows] = torch.maximum(cover[rows], strand)
    ink = torch.cat([shade, shade * 0.72, shade * 0.55], dim=1)[..., None]
    return image + cover[:, None] * (ink * 0.6 - image)


def _ruler(image: Tensor, x: Tensor, y: Tensor, look: Look, dice: Dice) -> Tensor:
    """A millimetre scale near one side, tilted a little."""
    present, tilt, shift = dice.happens(look.ruler), dice.uniform(-0.25, 0.25), dice.uniform(-0.3, 0.3)
    upright, side = dice.happens(0.5), 1 - 2 * dice.happens(0.5)
    gap, length, tick = dice.uniform(0.72, 0.85), dice.uniform(0.5, 0.75), dice.uniform(0.055, 0.09)
    rows = torch.nonzero(present[:, 0, 0])[:, 0]
    if len(rows) == 0:
        return image
    tilt, shift, upright, side, gap, length, tick = (c[rows] for c in (tilt, shift, upright, side, gap, length, tick))
    pitch, norm = _pitch(x), (1 + tilt * tilt).sqrt()
    first, second = torch.where(upright > 0, y, x), torch.where(upright > 0, x, y)
    along = (first - shift + tilt * second) / norm
    across = side * (second - tilt * first) / norm - gap
    within = smoothstep(length + pitch, length, along.abs())
    number = (along / tick).round()
    long = (number - 5 * (number / 5).round() == 0).float()
    mark = coverage((along - number * tick).abs(), 0.007, pitch)
    mark = (
        mark
        * smoothstep(-pitch / 2, pitch / 2, -across)
        * smoothstep(-pitch / 2, pitch / 2, across + 0.06 + 0.05 * long)
    )
    ink = within * torch.maximum(mark, coverage(across.abs(), 0.008, pitch)) * 0.85
    drawn = image.clone()
    drawn[rows] = image[rows] + ink[:, None] * (0.12 - image[rows])
    return drawn


def _bubbles(image: Tensor, x: Tensor, y: Tensor, look: Look, dice: Dice) -> Tensor:
    """Bubbles of immersion gel: a dark and bright rim and the lamp's white reflection."""
    count = dice.happens(look.bubbles) * dice.uniform(1, BUBBLES + 1)
    lamp_x, lamp_y = dice.direction()
    pitch, drawn = _pitch(x), image.clone()
    for bubble in range(BUBBLES):
        centre_x, centre_y, radius = dice.uniform(-1, 1), dice.uniform(-1, 1), dice.uniform(0.03, 0.14)
        rows = torch.nonzero(count[:, 0, 0] > bubble + 0.5)[:, 0]
        if len(rows) == 0:
            continue
        dx, dy = x - centre_x[rows], y - centre_y[rows]
        radius, toward_x, toward_y = radius[rows], lamp_x[rows], lamp_y[rows]
        distance = (dx * dx + dy * dy).sqrt()
        facing = (dx * toward_x + dy * toward_y) / distance.clamp(min=1e-6)
        rim = coverage((distance - radius).abs(), 0.12 * radius, pitch)
        inner = smoothstep(radius, 0.6 * radius, distance)
        spot_x, spot_y = dx - 0.55 * radius * toward_x, dy - 0.55 * radius * toward_y
        glint = smoothstep(0.3, 0.15, (spot_x * spot_x + spot_y * spot_y).sqrt() / (radius + pitch))
        light = 0.28 * rim * facing + 0.05 * inner
        here = drawn[rows] * (1 + light[:, None])
        drawn[rows] = here + (0.85 * glint + 0.3 * rim * facing.clamp(min=0))[:, None] * (1 - here)
    return drawn


def _light(image: Tensor, x: Tensor, y: Tensor, look: Look, dice: Dice, noise: Noise) -> Tensor:
    """A lamp's gradient and clouds, a colour cast, and the fall-off towards the corners."""
    strength = look.illumination
    along, across = dice.direction()
    gradient = dice.uniform(0, 0.14) * (along * x + across * y)
    clouds = 0.06 * noise.fractal(1, 2)
    fall = dice.uniform(0, 0.3) * look.vignette * smoothstep(0.5, 1.5, (x * x + y * y).sqrt())
    gain = 1 + strength * (gradient + clouds + dice.uniform(0.0, 0.22))
    cast = torch.cat([1 + strength * dice.uniform(-c, c) for c in (0.05, 0.05, 0.1)], dim=1)[..., None]
    return image * cast * (gain * (1 - fall).clamp(min=0))[:, None]


def _rim(image: Tensor, x: Tensor, y: Tensor, outline: Outline, look: Look, dice: Dice) -> Tensor:
    """The dermatoscope's black surround; wide enough that it never hides the lesion."""
    centre_x, centre_y = dice.bell() * 0.06, dice.bell() * 0.06
    wanted = torch.where(dice.happens(look.field_of_view) > 0, dice.uniform(0.92, 1.15), torch.full_like(centre_x, 9.0))
    radius = torch.maximum(wanted, outline.reach(centre_x, centre_y) + 0.04)
    blur = dice.uniform(0.015, 0.06)
    dx, dy = x - centre_x, y - centre_y
    dark = smoothstep(radius - blur, radius + blur, (dx * dx + dy * dy).sqrt())
    return image * (1 - 0.96 * dark)[:, None]
