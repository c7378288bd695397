from __future__ import annotations

import math

import pytest
import torch

from lesionforge.core.loading import load_dataset
from lesionforge.plugins.captions.attributes import measure
from lesionforge.plugins.captions.wording import LEVELS, level_of

AXIS = torch.arange(256) + 0.5
X, Y = AXIS.expand(256, 256), AXIS[:, None].expand(256, 256)
SKIN = torch.tensor([0.80, 0.65, 0.57])[:, None, None]
MASK = ((X - 128) ** 2 + (Y - 128) ** 2 < 40**2).float()[None, None]


def skin() -> torch.Tensor:
    """Grainy skin with a dark disc in the middle."""
    grain = torch.randn(1, 256, 256, generator=torch.Generator().manual_seed(0)) * 0.01
    return torch.where(MASK[0] > 0, SKIN * 0.5, SKIN + grain).clamp(0, 1)


def drawn(image: torch.Tensor, where: torch.Tensor, colour: tuple[float, float, float]) -> torch.Tensor:
    return torch.where(where, torch.tensor(colour)[:, None, None], image)


def hairs(count: int) -> torch.Tensor:
    """Thin arcs over the upper part of the image."""
    where = torch.zeros(256, 256, dtype=torch.bool)
    for number in range(count):
        radius = 190 + 12 * number
        where |= ((((X - 128) ** 2 + (Y - 260) ** 2).sqrt() - radius).abs() < 1.2) & (Y < 80)
    return where


def ruler(angle: float, *, ticks: bool = True) -> torch.Tensor:
    along = (X - 128) * math.cos(angle) + (Y - 205) * math.sin(angle)
    across = -(X - 128) * math.sin(angle) + (Y - 205) * math.cos(angle)
    marks = ((along % 8) < 1.3) & (across > -9) & (across < 0) if ticks else torch.zeros_like(along, dtype=torch.bool)
    return ((across.abs() < 1) | marks) & (along.abs() < 80)


def levels(image: torch.Tensor) -> dict[str, str | None]:
    found = measure(image[None], MASK)
    return {name: level_of(getattr(found, name), LEVELS[name])[0] for name in ("hair", "ruler", "ink", "marker")}


NOTHING = {"hair": "none", "ruler": "none", "ink": "none", "marker": "none"}


def test_bare_skin_has_no_marks():
    assert levels(skin()) == NOTHING


def test_more_hairs_are_more_hair():
    few, many = (drawn(skin(), hairs(count), (0.15, 0.1, 0.08)) for count in (3, 6))
    assert levels(few) == NOTHING | {"hair": "few"}
    assert levels(many) == NOTHING | {"hair": "many"}


@pytest.mark.parametrize("angle", [0.0, 0.3, -0.5, 1.2])
def test_a_ruler_is_a_straight_line_with_ticks_in_any_direction(angle):
    assert levels(drawn(skin(), ruler(angle), (0.2, 0.2, 0.2)))["ruler"] == "ruler"
    assert levels(drawn(skin(), ruler(angle, ticks=False), (0.2, 0.2, 0.2)))["ruler"] == "none"


def test_a_ruler_is_no_hair():
    assert levels(drawn(skin(), ruler(0.1), (0.2, 0.2, 0.2))) == NOTHING | {"ruler": "ruler"}


def test_ink_is_violet_and_a_marker_is_not():
    patch = (X < 40) & (Y < 40)
    assert levels(drawn(skin(), patch, (0.42, 0.28, 0.62))) == NOTHING | {"ink": "ink"}
    assert levels(drawn(skin(), patch, (0.1, 0.6, 0.2))) == NOTHING | {"marker": "marker"}
    assert levels(drawn(skin(), patch, (0.3, 0.7, 0.8))) == NOTHING | {"marker": "marker"}


def test_what_lies_in_the_lesion_is_no_mark():
    inside = (X - 128).abs() + (Y - 128).abs() < 20
    assert levels(drawn(skin(), inside, (0.42, 0.28, 0.62))) == NOTHING


def test_a_corner_full_of_lesion_is_not_dark():
    lesion = (X < 60).float()[None, None]
    image = torch.where(lesion[0] > 0, SKIN * 0.2, SKIN)
    assert measure(image[None], lesion).corners.item() == pytest.approx(1, abs=0.02)


def test_dark_corners_are_told_from_even_light():
    distance = ((X - 128) ** 2 + (Y - 128) ** 2).sqrt()
    even, dark = measure(skin()[None], MASK), measure((skin() * (distance < 135))[None], MASK)
    assert even.corners.item() == pytest.approx(1, abs=0.02)
    assert dark.corners.item() < 0.3
    assert dark.skin_tone.item() == pytest.approx(even.skin_tone.item(), abs=1)


def shares_of(data: str, name: str) -> dict[str | None, float]:
    batch = load_dataset(data).fetch(range(12), masks=True)
    assert batch.images is not None
    found = level_of(getattr(measure(batch.images, batch.masks), name), LEVELS[name])
    return {level: found.count(level) / len(found) for level in set(found)}


def test_phantoms_show_hair_where_they_were_given_any():
    plain = "phantom(size=256, count=12, ruler=0, bubbles=0, field_of_view=0, hair="
    assert shares_of(f"{plain}0)", "hair").get("none", 0) > 0.9
    assert shares_of(f"{plain}1)", "hair").get("none", 0) < 0.35


def test_the_skin_tone_of_phantoms_is_the_one_that_they_were_given():
    light = "hair=0, ruler=0, bubbles=0, field_of_view=0, vignette=0, illumination=0"
    data = load_dataset(f"phantom(size=64, count=16, {light})")
    batch = data.fetch(range(16), masks=True)
    assert batch.images is not None
    truth = torch.tensor([float(record.metadata["skin_ita"]) for record in data.records])
    error = measure(batch.images, batch.masks).skin_tone - truth
    assert truth.max() - truth.min() > 50
    assert error.abs().median() < 6
