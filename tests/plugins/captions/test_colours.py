from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.color import lab2rgb, rgb2lab

from lesionforge.plugins.captions.colours import (
    COLOURS,
    REFERENCES,
    colour_shares,
    lab,
    masked_median,
    typology_angle,
)

SKIN = (66.0, 9.0, 9.0)


def painted(*colours: tuple[float, float, float], size: int = 32) -> torch.Tensor:
    """An image of horizontal stripes in CIELAB colours, over skin in the outermost eight columns."""
    stripes = np.repeat(np.array(colours, float), math.ceil(size / len(colours)), axis=0)[:size]
    pixels = np.repeat(stripes[:, None], size, axis=1)
    pixels[:, :4] = pixels[:, -4:] = SKIN
    return torch.from_numpy(lab2rgb(pixels)).permute(2, 0, 1)[None].float()


def lesion_of(image: torch.Tensor) -> torch.Tensor:
    lesion = torch.zeros_like(image[:, :1], dtype=torch.bool)
    lesion[..., 4:-4] = True
    return lesion


def test_cielab_is_that_of_scikit_image():
    images = torch.rand(3, 3, 20, 30, generator=torch.Generator().manual_seed(0))
    images[0, :, 0, :3] = torch.tensor([0.0, 1.0, 0.003])
    expected = rgb2lab(images.double().permute(0, 2, 3, 1).numpy())
    assert np.abs(lab(images).permute(0, 2, 3, 1).numpy() - expected).max() < 0.02
    exact = lab(images.double()).permute(0, 2, 3, 1).numpy()
    assert np.abs(exact - expected).max() < 0.01


@settings(max_examples=200, deadline=None)
@given(lightness=st.floats(0, 100), b=st.floats(0.01, 60))
def test_the_typology_angle_is_its_formula(lightness, b):
    angle = typology_angle(torch.tensor([[lightness, 12.0, b]], dtype=torch.float64)).item()
    assert angle == pytest.approx(math.degrees(math.atan((lightness - 50) / b)), abs=1e-9)


def test_the_angle_goes_on_beyond_ninety_degrees_under_a_blue_cast():
    angles = typology_angle(torch.tensor([[70.0, 0.0, 1e-6], [70.0, 0.0, -1e-6], [70.0, 0.0, -5.0]]))
    assert angles[0] == pytest.approx(90, abs=1e-3) and angles[1] == pytest.approx(90, abs=1e-3)
    assert 90 < angles[2] < 180


@pytest.mark.parametrize("name", COLOURS)
def test_every_example_of_a_colour_gets_its_name(name):
    for example in REFERENCES[name]:
        image = painted(example)
        lesion = lesion_of(image)
        shares = colour_shares(image, lesion, ~lesion)[0]
        assert shares[COLOURS.index(name)] > 0.99


def test_shares_add_up_and_skin_has_its_own_place():
    image = painted(REFERENCES["black"][0], REFERENCES["white"][0], SKIN, SKIN)
    lesion = lesion_of(image)
    shares = colour_shares(image, lesion, ~lesion)[0]
    assert shares.sum().item() == pytest.approx(1)
    assert shares[COLOURS.index("black")].item() == pytest.approx(0.25, abs=0.01)
    assert shares[COLOURS.index("white")].item() == pytest.approx(0.25, abs=0.01)
    assert shares[-1].item() == pytest.approx(0.5, abs=0.01)


def test_a_colour_cast_is_mostly_taken_out():
    image = painted(REFERENCES["dark brown"][0], REFERENCES["light brown"][0])
    lesion = lesion_of(image)
    reddish = (image * torch.tensor([1.15, 0.95, 0.9])[:, None, None]).clamp(0, 1)
    plain, cast = (colour_shares(picture, lesion, ~lesion)[0] for picture in (image, reddish))
    assert (plain - cast).abs().max() < 0.05


def test_without_skin_the_picture_is_taken_as_it_is():
    image = painted(REFERENCES["blue-grey"][0])
    everything = torch.ones_like(image[:, :1], dtype=torch.bool)
    lesion = lesion_of(image)
    assert colour_shares(image, lesion, ~everything)[0, COLOURS.index("blue-grey")] > 0.99
    assert colour_shares(image, ~everything, everything).isnan().all()


def test_the_masked_median_is_numpy_s_over_an_odd_number_of_pixels():
    rng = torch.Generator().manual_seed(1)
    values, where = torch.rand(2, 3, 9, 9, generator=rng), torch.rand(2, 1, 9, 9, generator=rng) < 0.4
    for case in range(2):
        if where[case].sum() % 2 == 0:
            where[case].view(-1)[where[case].view(-1).nonzero()[0]] = False
        expected = np.median(values[case][:, where[case, 0]].numpy(), axis=1)
        assert np.allclose(masked_median(values, where)[case].numpy(), expected)
    assert masked_median(values, torch.zeros_like(where)).isnan().all()
