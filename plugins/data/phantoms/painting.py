"""Paints phantom skin and lesions: light that pigment and blood absorb on its way through the skin.

Colours follow the Beer-Lambert law with made-up absorptions of melanin and blood in the three channels; blue-grey
veil, scar and horn, which scatter rather than absorb, are mixed in as opaque layers.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from .anatomy import Anatomy
from .arithmetic import bump, decay, smoothstep
from .noise import Cells, Noise
from .outline import Outline
from .tones import skin_colour

MELANIN = (0.66, 1.0, 1.36)
BLOOD = (0.10, 0.90, 0.72)
VEIL = (0.50, 0.54, 0.61)
PEARL = (1.0, 0.93, 0.78)
HORN = ((0.80, 0.62, 0.38), (0.66, 0.58, 0.50))
PATCHES = 4


@dataclass
class Layers:
    """What lies on N pixel grids (N, H, W): optical densities of melanin and blood, opacities of the rest."""

    melanin: Tensor
    blood: Tensor
    veil: Tensor
    scar: Tensor
    horn: Tensor
    pearl: Tensor


@dataclass(frozen=True)
class Site:
    """Where on each lesion the pixels are.

    Attributes:
        x, y: (N, 1, W) and (N, H, 1) offsets from the lesion's centre in lesion radii.
        depth: (N, H, W) distance inwards from the outline in lesion radii, negative outside.
        inside: (N, H, W) opacity of the lesion, about a half on its outline.
        radius: (N, 1, 1) lesion radius in half image edges.
    """

    x: Tensor
    y: Tensor
    depth: Tensor
    inside: Tensor
    radius: Tensor


def paint(
    anatomy: Anatomy, outline: Outline, x: Tensor, y: Tensor, noise: Noise, cells: Cells, *, texture: float
) -> Tensor:
    """Return (N, 3, H, W) colours of evenly lit skin with its lesion on the grid of ``x`` and ``y``."""
    distance, relative_softness = outline.distance(x, y)
    depth = -distance / outline.radius
    softness = anatomy.traits["softness"] * relative_softness
    inside = smoothstep(-softness, softness, depth + 0.45 * softness * noise.fractal(9, 2))
    centre_x, centre_y = outline.centre
    site = Site((x - centre_x) / outline.radius, (y - centre_y) / outline.radius, depth, inside, outline.radius)
    layers = _skin(anatomy, site, noise, texture)
    _add_ground(layers, anatomy, site, noise)
    _add_network(layers, anatomy, site, noise, cells)
    _add_spots(layers, anatomy, site, noise, cells)
    _add_patches(layers, anatomy, site, noise)
    return _colours(layers, skin_colour(anatomy.ita), anatomy)


def _skin(anatomy: Anatomy, site: Site, noise: Noise, texture: float) -> Layers:
    """Mottled pigment, blotches of blood, furrows and a faint red halo, under the lesion too."""
    dice = anatomy.dice
    mottle, furrows = noise.fractal(2, 4), 1 - noise.fractal(19).abs()
    flush, thread = noise.fractal(3, 3), 1 - noise.fractal(7).abs()
    grain, veins = dice.uniform(0.04, 0.13) * texture, dice.uniform(0.05, 0.25) * texture
    melanin = grain * (mottle + 0.6 * (furrows * furrows - 0.5))
    halo = dice.uniform(0, 0.14) * bump((site.depth / 0.4).square())
    blood = dice.uniform(0.0, 0.1) + veins * (
        0.4 * flush + 0.35 * smoothstep(0.88, 1.0, thread) * (flush + 0.3).clamp(min=0)
    )
    nothing = torch.zeros_like(melanin)
    return Layers(melanin, blood + halo, nothing, nothing, nothing, nothing)


def _add_ground(layers: Layers, anatomy: Anatomy, site: Site, noise: Noise) -> None:
    """The lesion's own pigment: blotchy, darker in the middle or on one side; horn on a keratosis."""
    traits, (along, across) = anatomy.traits, anatomy.dice.direction()
    side = (along * site.x + across * site.y).clamp(-1, 1)
    blotches, fine = noise.scaled(site.radius, 1), noise.fractal(18)
    ridges = 1 - noise.fractal(6, 2).abs()
    core = smoothstep(0.0, 0.9, site.depth) - 0.4
    shade = 1 + 1.8 * traits["mottle"] * blotches + 0.15 * fine + traits["drift"] * side + traits["core"] * core
    layers.melanin = layers.melanin + site.inside * traits["melanin"] * shade.clamp(min=0.3)
    layers.melanin = layers.melanin + site.inside * traits["ridges"] * (smoothstep(0.75, 1.0, ridges) - 0.25)
    layers.blood = layers.blood + site.inside * traits["blush"] * (1 + blotches)
    layers.horn = site.inside * (traits["wax"] * (0.8 + 0.7 * blotches)).clamp(0, 1)


def _add_network(layers: Layers, anatomy: Anatomy, site: Site, noise: Noise, cells: Cells) -> None:
    """A honeycomb of pigmented lines that thins out towards the rim; patchy and coarse where disordered."""
    traits, region = anatomy.traits, noise.scaled(site.radius, 1, 4)
    lines = cells.mesh(14.5, 0.85, anatomy.dice.uniform(0.26, 0.34) + 0.12 * traits["disorder"])
    presence = 1 - traits["disorder"] * smoothstep(0.2, -0.2, region)
    fade = smoothstep(-0.05, 0.3, site.depth)
    layers.melanin = layers.melanin + 0.75 * traits["network"] * presence * fade * site.inside * (lines - 0.35)


def _add_spots(layers: Layers, anatomy: Anatomy, site: Site, noise: Noise, cells: Cells) -> None:
    """Round structures of random size: brown dots and globules, comedo-like openings, milia-like cysts."""
    traits, region = anatomy.traits, noise.scaled(site.radius, 1, 4)
    kinds = ((0.0, 0.6), (0.0, 0.16), (0.6, 0.6 + 0.3 * traits["milia"]))
    within = smoothstep(0.0, 0.15, site.depth)
    brown, comedo, pearl = (within * discs for discs in cells.discs(10.5, 0.9, kinds))
    brown = brown * (1 - traits["disorder"] * smoothstep(-0.15, 0.15, region))
    layers.melanin = layers.melanin + traits["dots"] * 0.8 * brown + traits["comedones"] * 1.4 * comedo
    layers.horn = layers.horn * (1 - 0.9 * comedo)
    layers.pearl = 0.75 * pearl


def _add_patches(layers: Layers, anatomy: Anatomy, site: Site, noise: Noise) -> None:
    """Up to four regions of another colour, each of one kind: dark brown, blue-grey, red or white."""
    traits, dice = anatomy.traits, anatomy.dice
    coasts = (noise.scaled(site.radius, 2, 4), noise.scaled(site.radius, 2, 4))
    grain = noise.fractal(8, 2)
    for patch in range(PATCHES):
        along, across = dice.direction()
        place, radius = dice.uniform(0.1, 0.7), dice.uniform(0.3, 0.65)
        dx, dy = site.x - along * place, site.y - across * place
        coast = coasts[patch % 2] * (1 - 2 * (patch // 2))
        present = (traits["patches"] >= patch + 1).float()
        field = 1 - (dx * dx + dy * dy) / (radius * radius) + 2.0 * coast
        cover = present * site.inside * smoothstep(0.0, 0.8, field)
        kind = dice.uniform() * traits["variety"]
        dark, blue = (kind < 0.4).float(), ((kind >= 0.4) & (kind < 0.65)).float()
        red, white = ((kind >= 0.65) & (kind < 0.82)).float(), (kind >= 0.82).float()
        change = dark * dice.uniform(0.4, 1.5) + blue * 0.3 - red * 0.35
        layers.melanin = layers.melanin + cover * change
        layers.blood = layers.blood + cover * red * 0.55
        layers.veil = torch.maximum(layers.veil, cover * blue * (0.5 + 0.7 * grain).clamp(0, 0.8))
        layers.scar = torch.maximum(layers.scar, cover * white * (0.45 + 0.7 * grain).clamp(0, 0.75))


def _colours(layers: Layers, skin: Tensor, anatomy: Anatomy) -> Tensor:
    """Return (N, 3, H, W) colours of ``layers`` on bare ``skin`` (N, 3, 1, 1)."""

    def ink(colour: tuple[float, float, float]) -> Tensor:
        return torch.tensor(colour, device=skin.device).view(1, 3, 1, 1)

    light, share = skin[:, 0:1], anatomy.dice.uniform()[:, None]
    shadow = decay(layers.melanin.clamp(min=0))[:, None]
    horn = (ink(HORN[0]) + share * (ink(HORN[1]) - ink(HORN[0]))) * light
    colours = skin * decay(layers.melanin[:, None] * ink(MELANIN) + layers.blood[:, None] * ink(BLOOD))
    for opacity, layer in (
        (layers.horn, horn * (0.35 + 0.65 * shadow)),
        (layers.veil, ink(VEIL) * light * (0.55 + 0.45 * shadow)),
        (layers.scar, 0.5 * skin + 0.45 * light),
        (layers.pearl, ink(PEARL) * (0.2 + 0.75 * light)),
    ):
        colours = colours + opacity[:, None] * (layer - colours)
    return colours
