"""Colours of lesion and skin: CIELAB, the six colours of dermoscopy, and the skin tone by its typology angle."""

from __future__ import annotations

import torch
from torch import Tensor

RGB_TO_XYZ = (
    (0.412453, 0.357580, 0.180423),
    (0.212671, 0.715160, 0.072169),
    (0.019334, 0.119193, 0.950227),
)
"""ITU-R BT.709 primaries."""
WHITE = (0.95047, 1.0, 1.08883)
"""Illuminant D65, 2 degree observer."""

REFERENCES: dict[str, tuple[tuple[float, float, float], ...]] = {
    "white": ((88.0, 1.0, 4.0),),
    "red": ((61.0, 31.0, 16.0), (52.0, 44.0, 24.0), (42.0, 40.0, 14.0), (32.0, 36.0, 7.0)),
    "light brown": ((60.0, 15.0, 22.0), (62.0, 18.0, 38.0), (50.0, 25.0, 39.0)),
    "dark brown": ((31.0, 17.0, 18.0), (38.0, 24.0, 28.0)),
    "blue-grey": ((46.0, 2.0, -6.0), (32.0, 4.0, -9.0), (60.0, 0.0, -8.0)),
    "black": ((11.0, 5.0, 3.0),),
}
"""The colours of dermoscopy's ABCD rule (Nachbar et al. 1994), and examples of each in CIELAB, which are ours."""
COLOURS = tuple(REFERENCES)

STANDARD_SKIN = (0.43, 0.305, 0.265)
"""Linear RGB proportions of skin under a usual light: the median of 400 ISIC 2018 training images."""
CAST_REMOVED = 0.6
"""Share (exponent) of a picture's colour cast that is taken out: some of it is the skin's own colour."""


def linear_rgb(images: Tensor) -> Tensor:
    """Undo the transfer curve of sRGB (IEC 61966-2-1), elementwise on [0, 1]."""
    return torch.where(images <= 0.04045, images / 12.92, ((images.clamp_min(0.04045) + 0.055) / 1.055) ** 2.4)


def lab_of_linear(linear: Tensor) -> Tensor:
    """Return CIELAB (N, 3, H, W) of linear RGB; L* in [0, 100]."""
    matrix = linear.new_tensor(RGB_TO_XYZ) / linear.new_tensor(WHITE)[:, None]
    ratios = torch.einsum("kc,nchw->nkhw", matrix, linear)
    curve = torch.where(ratios > 0.008856, ratios.clamp_min(0.008856) ** (1 / 3), 7.787 * ratios + 16 / 116)
    x, y, z = curve.unbind(1)
    return torch.stack([116 * y - 16, 500 * (x - y), 200 * (y - z)], 1)


def lab(images: Tensor) -> Tensor:
    """Return CIELAB (D65, 2 degrees) of (N, 3, H, W) sRGB images in [0, 1]."""
    return lab_of_linear(linear_rgb(images))


def masked_median(values: Tensor, where: Tensor) -> Tensor:
    """Return the (N, C) lower medians of (N, C, H, W) over the pixels (N, 1, H, W) of ``where``; NaN over none."""
    return values.masked_fill(~where, torch.nan).flatten(2).nanmedian(2).values


def typology_angle(skin: Tensor) -> Tensor:
    """Return the individual typology angle in degrees of (N, 3) CIELAB colours: arctan((L* - 50) / b*).

    For b* at or below 0, which only a colour cast gives to skin, the angle goes on beyond 90 degrees.
    Source: Chardon, Cretois, Hourseau: "Skin colour typology and suntanning pathways", Int. J. Cosmet. Sci. 1991.
    """
    return torch.rad2deg(torch.atan2(skin[:, 0] - 50, skin[:, 2]))


def colour_shares(images: Tensor, lesion: Tensor, skin: Tensor) -> Tensor:
    """Return (N, 7) shares of the lesion: :data:`COLOURS`, and what looks like the skin around it.

    A pixel has the colour whose reference is nearest in CIELAB (Delta E*ab). Before that the picture's colour cast is
    taken out: channels are scaled so that the surrounding skin gets standard proportions, luminance kept [ours].

    Args:
        images: (N, 3, H, W) sRGB in [0, 1].
        lesion: (N, 1, H, W) bool.
        skin: (N, 1, H, W) bool, pixels of the surrounding skin; where there are none the picture is taken as it is.
    """
    nearest = nearest_colour(images, skin).flatten(1)
    inside = lesion.flatten(1)
    counts = torch.stack([((nearest == number) & inside).sum(1) for number in range(len(COLOURS) + 1)], 1)
    return counts / torch.where(inside.any(1), inside.sum(1), torch.nan)[:, None]


def nearest_colour(images: Tensor, skin: Tensor) -> Tensor:
    """Return (N, H, W) numbers in :data:`COLOURS`, or the number after the last for the colour of skin."""
    linear = linear_rgb(images)
    reference = masked_median(linear, skin)
    known = reference.isfinite().all(1)
    neutral = linear * _cast_gain(reference)[:, :, None, None]
    shown = lab_of_linear(neutral)
    own = masked_median(shown, skin)
    examples = [example for group in REFERENCES.values() for example in group]
    names = [number for number, group in enumerate(REFERENCES.values()) for _ in group]
    references = shown.new_tensor(examples).expand(len(images), -1, -1)
    far = torch.full_like(own, 1e4)
    references = torch.cat([references, torch.where(known[:, None], own, far)[:, None]], 1)
    nearest = torch.cdist(shown.flatten(2).transpose(1, 2), references).argmin(2)
    numbers = torch.tensor([*names, len(COLOURS)], device=images.device)[nearest]
    return numbers.view(len(images), *images.shape[2:])


def _cast_gain(skin: Tensor) -> Tensor:
    """Return the (N, 3) channel gains that bring skin to standard proportions; 1 where skin is unknown."""
    luminance = skin.new_tensor(RGB_TO_XYZ[1])
    standard = skin.new_tensor(STANDARD_SKIN)
    target = standard * ((skin @ luminance) / (standard @ luminance))[:, None]
    return ((target / skin.clamp_min(1e-3)) ** CAST_REMOVED).nan_to_num(nan=1.0)
