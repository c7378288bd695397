from __future__ import annotations

import pytest
import torch

from lesionforge.plugins.data.augmentation import Augmentation


def augmentation(
    *, flips: bool = False, rotation_degrees: float = 0.0, scale: float = 0.0, colour: float = 0.0
) -> Augmentation:
    return Augmentation(flips=flips, rotation_degrees=rotation_degrees, scale=scale, colour=colour)


@pytest.fixture
def pair() -> tuple[torch.Tensor, torch.Tensor]:
    """Images that show their own masks: an off-centre ellipse, bright on dark."""
    y, x = torch.meshgrid(torch.arange(48.0), torch.arange(64.0), indexing="ij")
    masks = torch.stack([((y - 20 - row) / 9) ** 2 + ((x - 25) / 16) ** 2 < 1 for row in range(6)])[:, None].float()
    return (0.2 + 0.6 * masks).expand(-1, 3, -1, -1).clone(), masks


def test_without_any_change_the_input_comes_back(pair):
    images, masks = augmentation()(*pair)
    assert torch.equal(images, pair[0]) and torch.equal(masks, pair[1])
    assert type(images) is torch.Tensor and type(masks) is torch.Tensor


@pytest.mark.parametrize("values", [{"flips": True}, {"rotation_degrees": 180.0}, {"scale": 0.3}, {"colour": 0.3}])
def test_masks_move_with_their_images(pair, values):
    torch.manual_seed(0)
    images, masks = augmentation(**values)(*pair)
    assert images.shape == pair[0].shape and masks.shape == pair[1].shape
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    assert images.min() >= 0 and images.max() <= 1
    level = (images.amax((1, 2, 3), keepdim=True) + images.amin((1, 2, 3), keepdim=True)) / 2
    seen = (images.mean(1, keepdim=True) > level).float()
    assert (seen - masks).abs().mean() < 0.01


def test_flips_are_exact_and_each_case_draws_its_own(pair):
    torch.manual_seed(1)
    masks = pair[1].repeat(8, 1, 1, 1)
    _, flipped = augmentation(flips=True)(pair[0].repeat(8, 1, 1, 1), masks)
    kinds = set()
    for before, after in zip(masks, flipped, strict=True):
        views = {name: before.flip(axes) for name, axes in {"": (), "x": (-1,), "y": (-2,), "xy": (-2, -1)}.items()}
        kinds |= {name for name, view in views.items() if torch.equal(view, after)}
    assert kinds == {"", "x", "y", "xy"}


def test_parameters_are_a_function_of_the_random_state_alone(pair):
    everything = augmentation(flips=True, rotation_degrees=40.0, scale=0.2, colour=0.2)

    def run(seed: int) -> tuple[torch.Tensor, torch.Tensor]:
        torch.manual_seed(seed)
        return everything(*pair)

    first, again, other = run(5), run(5), run(6)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not torch.equal(first[0], other[0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        torch.manual_seed(5)
        cast = everything(*pair)
    assert cast[0].dtype == torch.float32
    assert torch.equal(first[1], cast[1]), "autocast must not move masks"


def test_images_alone_are_changed_as_beside_masks(pair):
    everything = augmentation(flips=True, rotation_degrees=40.0, scale=0.2, colour=0.2)
    torch.manual_seed(5)
    beside, _ = everything(*pair)
    torch.manual_seed(5)
    assert torch.equal(everything.images(pair[0]), beside)


def test_scale_and_rotation_keep_areas_as_geometry_says(pair):
    images, masks = pair[0].repeat(20, 1, 1, 1), pair[1].repeat(20, 1, 1, 1)
    torch.manual_seed(2)
    _, turned = augmentation(rotation_degrees=30.0)(images, masks)
    before, after = masks.sum((1, 2, 3)), turned.sum((1, 2, 3))
    assert ((after / before - 1).abs() < 0.1).all()
    _, scaled = augmentation(scale=0.2)(images, masks)
    ratio = scaled.sum((1, 2, 3)) / before
    assert ratio.min() > 0.8**2 - 0.05 and ratio.max() < 1.2**2 + 0.05 and ratio.std() > 0.1
