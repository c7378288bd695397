"""What distinguishes the three phantom classes, and the outline of each lesion.

The classes borrow the vocabulary of the ABCD rule (Nachbar et al. 1994: asymmetry, border, colours, dermoscopic
structures), but every range below is our choice and fitted to nothing: phantoms are drawings, not a model of disease.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from .noise import Dice

if TYPE_CHECKING:
    from ..phantom import Look

DRAWS = 160

# Range of each trait for nevus, melanoma, seborrheic keratosis; a case draws uniformly within its class's range.
PROFILES: Mapping[str, tuple[tuple[float, float], tuple[float, float], tuple[float, float]]] = {
    # outline
    "area": ((0.0, 0.5), (0.1, 1.0), (0.0, 0.6)),  # place within the configured range of area fractions
    "elongation": ((1.0, 1.3), (1.0, 1.6), (1.0, 1.5)),  # ratio of the axes
    "lobes": ((0.02, 0.08), (0.10, 0.22), (0.04, 0.12)),  # amplitude of the outline's slow waves, in radii
    "jags": ((0.005, 0.015), (0.03, 0.07), (0.012, 0.03)),  # amplitude of its fast waves, in radii
    "notch": ((0.0, 0.0), (0.0, 0.3), (0.0, 0.1)),  # depth of two dents, in radii
    "softness": ((0.08, 0.22), (0.05, 0.16), (0.02, 0.05)),  # half width of the edge, in radii
    "edge_change": ((0.0, 0.3), (0.4, 0.8), (0.0, 0.3)),  # how much the softness differs around the outline
    # colours
    "melanin": ((0.5, 1.3), (0.7, 1.5), (0.45, 1.0)),  # optical density of the lesion's ground
    "mottle": ((0.1, 0.3), (0.35, 0.75), (0.2, 0.4)),  # how blotchy that ground is
    "drift": ((0.0, 0.15), (0.3, 0.8), (0.0, 0.25)),  # how much darker one side is than the other
    "core": ((-0.4, 0.6), (-0.2, 0.3), (-0.1, 0.2)),  # how much darker the middle is than the rim
    "patches": ((0.0, 1.3), (2.0, 5.0), (0.0, 1.3)),  # number of further colours, rounded down
    "variety": ((0.0, 0.4), (1.0, 1.0), (0.0, 0.4)),  # up to 0.4 only darker brown; to 1 also blue-grey, red and white
    "blush": ((0.0, 0.15), (0.0, 0.3), (0.0, 0.15)),  # optical density of blood in the lesion
    "wax": ((0.0, 0.0), (0.0, 0.0), (0.35, 0.7)),  # opacity of the dull yellow-grey horn
    # structures
    "network": ((0.0, 0.8), (0.2, 1.0), (0.0, 0.0)),  # strength of the pigment network
    "disorder": ((0.0, 0.2), (0.6, 1.0), (0.0, 0.0)),  # how patchy the network and the dots are
    "dots": ((0.0, 0.7), (0.3, 1.2), (0.0, 0.0)),  # strength of brown dots and globules
    "milia": ((0.0, 0.0), (0.0, 0.0), (0.3, 1.0)),  # strength of milia-like cysts, bright dots
    "comedones": ((0.0, 0.0), (0.0, 0.0), (0.0, 1.0)),  # strength of comedo-like openings, dark dots
    "ridges": ((0.0, 0.1), (0.0, 0.1), (0.2, 0.5)),  # strength of fissures and ridges
}


@dataclass(frozen=True)
class Anatomy:
    """Everything about N lesions that a second photograph would show again.

    Attributes:
        labels: (N,) class numbers, places in :data:`CLASSES`.
        traits: each name of :data:`PROFILES`, (N, 1, 1).
        area: (N, 1, 1) share of the image that the lesion covers.
        ita: (N, 1, 1) individual typology angle of the skin in degrees.
        dice: what draws further details of these lesions.
    """

    labels: Tensor
    traits: Mapping[str, Tensor]
    area: Tensor
    ita: Tensor
    dice: Dice


def draw_anatomy(
    seeds: Sequence[int], look: Look, labels: Sequence[int | None], stream: int, device: torch.device
) -> Anatomy:
    """Draw N lesions, of a given class where ``labels`` has its number, else by the weights of ``look``."""
    dice = Dice(seeds, DRAWS, stream=stream, step=0, device=device)
    shares = torch.tensor(look.class_weights, device=device).cumsum(0)
    drawn = (dice.uniform()[:, 0] * shares[-1] >= shares[:-1]).sum(1)
    given = torch.tensor([-1 if label is None else label for label in labels], dtype=torch.int64, device=device)
    numbers = torch.where(given < 0, drawn, given)
    traits = _draw_traits(numbers, dice, look.trait_strengths)
    return Anatomy(
        labels=numbers,
        traits=traits,
        area=look.area_min + (look.area_max - look.area_min) * traits["area"],
        ita=dice.uniform(look.ita_min, look.ita_max),
        dice=dice,
    )


def _draw_traits(labels: Tensor, dice: Dice, strengths: Mapping[str, float]) -> dict[str, Tensor]:
    """Return each trait of :data:`PROFILES` as (N, 1, 1), for class numbers ``labels`` (N,).

    ``strengths`` multiplies traits by name; a trait that is not named stays as drawn.
    """
    traits = {}
    for name, ranges in PROFILES.items():
        bounds = torch.tensor(ranges, dtype=torch.float32, device=labels.device)[labels]
        value = dice.uniform(bounds[:, 0, None, None], bounds[:, 1, None, None])
        traits[name] = value * strengths.get(name, 1.0)
    return traits
