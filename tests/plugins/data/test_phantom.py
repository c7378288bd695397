"""The phantom source and generator: masks that fit, classes that differ, bits that depend on a case's seed alone."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from functools import cache

import numpy as np
import pytest
import torch
from scipy import ndimage
from skimage.color import rgb2lab
from skimage.filters import threshold_otsu
from skimage.measure import regionprops

from lesionforge.core.batch import Batch
from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import ConfigError, DataError, PluginError
from lesionforge.core.seeding import case_seed
from lesionforge.plugins.data.phantom import CLASSES, Look, PhantomGenerator, PhantomSource
from lesionforge.plugins.data.phantoms.rendering import Phantoms, render
from lesionforge.testing import assert_contract

SEEDS = tuple(case_seed(7, index) for index in range(240))


def rendered(seeds: tuple[int, ...] = SEEDS[:40], size: int = 64, label: str | None = None, **look: float) -> Phantoms:
    number = None if label is None else CLASSES.index(label)
    labels = [number] * len(seeds)
    return render(seeds, seeds, labels, Look(**look), size=size, stream=5, device=torch.device("cpu"))


def generated(seeds: tuple[int, ...], labels: tuple[str | None, ...] | None = None, **config: float) -> Batch:
    stage = PhantomGenerator(PhantomGenerator.Config(**config))
    stage.setup(Context(device=torch.device("cpu"), name="phantom"))
    return stage.generate(Batch(ids=tuple(map(str, range(len(seeds)))), seeds=seeds, labels=labels))


def dataset(**config: object) -> Dataset:
    return PhantomSource(build_config(PhantomSource.Config, config, where="data")).load(None)


@cache
def of_class(label: str) -> tuple[np.ndarray, np.ndarray]:
    """Return (N, 64, 64, 3) images and (N, 64, 64) bool masks of whole lesions of one class, of like size."""
    whole = {"border_touch": 0.0, "area_min": 0.2, "area_max": 0.3, "hair": 0.0, "ruler": 0.0, "bubbles": 0.0}
    phantoms = rendered(SEEDS[:70], label=label, **whole)
    return phantoms.images.permute(0, 2, 3, 1).numpy(), phantoms.masks[:, 0].numpy() > 0


def test_generator_keeps_the_contract() -> None:
    assert_contract("phantom(size=32)", role="generator")


def test_source_keeps_the_contract() -> None:
    assert_contract("phantom(size=32, count=4)", role="source")


@pytest.mark.parametrize("size", [64, 80])
def test_bits_depend_on_the_seed_alone(size: int) -> None:
    together = rendered(SEEDS[:12], size)
    order = torch.randperm(12, generator=torch.Generator().manual_seed(0)).tolist()
    shuffled = rendered(tuple(SEEDS[row] for row in order), size)
    for column, other in zip(together, shuffled, strict=True):
        assert torch.equal(column[order], other)
    for row in range(12):
        alone = rendered(SEEDS[row : row + 1], size)
        assert torch.equal(alone.images[0], together.images[row])
        assert torch.equal(alone.masks[0], together.masks[row])


@pytest.mark.parametrize("small", [32, 64])
def test_a_seed_shows_one_lesion_at_every_size(small: int) -> None:
    coarse, fine = (rendered(SEEDS[:24], size, noise=0) for size in (small, 2 * small))
    averaged = torch.nn.functional.avg_pool2d(fine.images, 2)
    assert (averaged - coarse.images).abs().mean() < 0.02
    covered = torch.nn.functional.avg_pool2d(fine.masks, 2)
    assert ((covered > 0.5) != (coarse.masks > 0)).float().mean() < 0.01
    assert torch.equal(coarse.labels, fine.labels)


@pytest.mark.parametrize("size", [32, 64, 128])
@pytest.mark.parametrize("irregularity", [0.0, 1.0, 1.5])
def test_masks_are_one_component_of_the_wanted_area(size: int, irregularity: float) -> None:
    masks = rendered(
        SEEDS[: 2560 // size], size, irregularity=irregularity, area_min=0.05, area_max=0.5, border_touch=0.3
    ).masks
    assert set(masks.unique().tolist()) == {0.0, 1.0}
    for mask in masks[:, 0].numpy() > 0:
        assert ndimage.label(mask)[1] == 1
        assert ndimage.binary_fill_holes(mask).sum() == mask.sum()
        assert 0.05 - 2 / size**1.2 <= mask.mean() <= 0.5 + 2 / size**1.2


def asymmetry(mask: np.ndarray) -> float:
    """Return 1 - IoU of the mask with itself turned by half a circle around its centroid."""
    row, column = ndimage.center_of_mass(mask)
    middle = (mask.shape[0] - 1) / 2
    centred = ndimage.shift(mask.astype(float), (middle - row, middle - column), order=1) > 0.5
    turned = centred[::-1, ::-1]
    return 1 - float((centred & turned).sum() / (centred | turned).sum())


def dents(mask: np.ndarray) -> float:
    """Return the share of the convex hull that the mask does not fill."""
    return 1 - float(regionprops(mask.astype(int))[0].solidity)


def colour_spread(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the summed standard deviations of L*, a* and b* within the mask."""
    return float(rgb2lab(image)[mask].std(axis=0).sum())


def bright_dots(image: np.ndarray, mask: np.ndarray) -> float:
    """Return the share of the lesion's inside that is clearly brighter than its surroundings."""
    lightness = rgb2lab(image)[..., 0]
    excess = lightness - ndimage.median_filter(lightness, 7)
    return float((excess > 8)[ndimage.binary_erosion(mask, iterations=3)].mean())


def medians(measure: Callable[..., float], *, with_image: bool) -> dict[str, float]:
    values = {}
    for label in CLASSES:
        images, masks = of_class(label)
        columns = (images, masks) if with_image else (masks,)
        values[label] = float(np.median([measure(*row) for row in zip(*columns, strict=True)]))
    return values


def test_melanomas_are_the_more_irregular_and_asymmetric() -> None:
    border, shape = medians(dents, with_image=False), medians(asymmetry, with_image=False)
    assert border["melanoma"] > 1.5 * border["seborrheic_keratosis"] > 1.5 * border["nevus"]
    assert shape["melanoma"] > 1.5 * shape["seborrheic_keratosis"] > 1.5 * shape["nevus"]


def test_melanomas_have_more_colours_and_keratoses_bright_dots() -> None:
    colours, dots = medians(colour_spread, with_image=True), medians(bright_dots, with_image=True)
    assert colours["melanoma"] > 1.5 * max(colours["nevus"], colours["seborrheic_keratosis"])
    assert dots["seborrheic_keratosis"] > 2 * max(dots["nevus"], dots["melanoma"])


@pytest.mark.parametrize("label", CLASSES)
def test_lesions_stand_out_from_the_skin_around_them(label: str) -> None:
    images, masks = of_class(label)
    for image, mask in zip(images.mean(-1), masks, strict=True):
        ring = ndimage.binary_dilation(mask, iterations=8) & ~ndimage.binary_dilation(mask, iterations=4)
        assert np.median(image[ring]) - np.median(image[mask]) > 0.1


def test_darkness_alone_finds_most_lesions() -> None:
    phantoms = rendered(SEEDS[:120])
    overlaps = []
    for image, mask in zip(phantoms.images.mean(1).numpy(), phantoms.masks[:, 0].numpy() > 0, strict=True):
        dark = image < threshold_otsu(image)
        overlaps.append((dark & mask).sum() / (dark | mask).sum())
    assert np.mean(np.array(overlaps) > 0.5) > 0.85


def test_images_use_the_range() -> None:
    images = rendered(illumination=2.0, noise=2.0).images
    assert images.dtype == torch.float32 and images.shape == (40, 3, 64, 64)
    assert images.isfinite().all() and images.min() >= 0 and images.max() <= 1
    assert images.std() > 0.1


def test_classes_come_in_the_proportions_asked_for() -> None:
    numbers = rendered(SEEDS, 32, nevus=2, melanoma=1, seborrheic_keratosis=1).labels
    shares = torch.bincount(numbers, minlength=3) / len(SEEDS)
    assert (shares - torch.tensor([0.5, 0.25, 0.25])).abs().max() < 0.1
    assert set(rendered(SEEDS[:40], 32, nevus=0, seborrheic_keratosis=0).labels.tolist()) == {1}


def test_the_black_rim_hides_no_lesion() -> None:
    free, rimmed = (rendered(field_of_view=share, noise=0, blur=0) for share in (0.0, 1.0))
    assert torch.equal(free.masks, rimmed.masks)
    lesion = free.masks.expand_as(free.images) > 0
    assert torch.allclose(free.images[lesion], rimmed.images[lesion], atol=0.02)
    darkened = (free.images - rimmed.images)[..., 0, 0].amax(1) > 0.2
    assert darkened.float().mean() > 0.5


@pytest.mark.parametrize("feature", ["hair", "ruler", "bubbles"])
def test_artefacts_lie_on_the_image_and_leave_the_mask(feature: str) -> None:
    look = {"hair": 0.0, "ruler": 0.0, "bubbles": 0.0}
    without, with_it = rendered(**look), rendered(**{**look, feature: 1.0})
    assert torch.equal(without.masks, with_it.masks)
    assert ((without.images - with_it.images).abs().flatten(1).amax(1) > 0.05).float().mean() > 0.9


@pytest.mark.parametrize("feature", ["network", "dots", "milia", "texture", "colours", "contrast", "softness"])
def test_strengths_change_the_lesion_not_the_mask(feature: str) -> None:
    weak, strong = rendered(**{feature: 0.5}), rendered(**{feature: 1.5})
    assert torch.equal(weak.masks, strong.masks)
    assert not torch.equal(weak.images, strong.images)


def test_generator_draws_the_class_that_is_asked_for() -> None:
    batch = generated(SEEDS[:4], ("melanoma", None, "seborrheic_keratosis", "nevus"), size=32)
    assert batch.labels is not None and batch.labels[0] == "melanoma"
    assert batch.labels[1] in CLASSES and batch.labels[2:] == ("seborrheic_keratosis", "nevus")
    assert all(fact["phantom"] and -20 <= fact["skin_ita"] <= 65 for fact in batch.provenance)
    with pytest.raises(PluginError, match="no phantom looks like 'wart'; classes are nevus, melanoma, seborr"):
        generated(SEEDS[:1], ("wart",))


def test_generator_makes_nothing_of_an_empty_batch() -> None:
    batch = generated((), size=32)
    assert batch.images is not None and batch.images.shape == (0, 3, 32, 32)


def test_generated_cases_never_repeat_the_source() -> None:
    batch, source = generated((case_seed(0, 0),), size=32), dataset(count=1, size=32)
    assert batch.masks is not None
    assert not np.array_equal(batch.masks[0, 0].numpy(), source.mask(0))


def test_source_is_a_reproducible_phantom_dataset() -> None:
    first, again, other = dataset(count=40, size=32), dataset(count=40, size=32), dataset(count=40, size=32, seed=1)
    assert first.phantom and len(first) == 40 and set(first.classes) == set(CLASSES)
    for record, same in zip(first.records, again.records, strict=True):
        assert record.image_id == same.image_id and record.split == same.split
        assert np.array_equal(record.image, same.image) and np.array_equal(record.mask, same.mask)
    assert isinstance(first.records[0].image, np.ndarray) and first.records[0].image.dtype == np.uint8
    assert first.masks_array(range(40)).max() == 1
    assert not np.array_equal(first.image(0), other.image(0))
    longer = dataset(count=50, size=32)
    assert np.array_equal(longer.image(20), first.image(20))


def test_source_splits_by_lesion() -> None:
    data = dataset(count=200, size=32, repeats=0.4, fractions=[0.5, 0.2, 0.3])
    splits: dict[str, set[str | None]] = {}
    for record in data.records:
        splits.setdefault(record.lesion, set()).add(record.split)
    assert all(len(names) == 1 for names in splits.values())
    assert 120 < len(splits) < 180
    shares = {name: len(data.split(name)) / 200 for name in ("train", "val", "test")}
    assert shares == pytest.approx({"train": 0.5, "val": 0.2, "test": 0.3}, abs=0.02)


def test_a_second_photograph_shows_the_same_lesion_in_another_light() -> None:
    data = dataset(count=20, size=64, repeats=1, border_touch=0)
    assert len({record.lesion for record in data.records}) == 10
    first, second = data.mask(0), data.mask(1)
    turned = [np.rot90(flipped, turns) for flipped in (second, second[::-1]) for turns in range(4)]
    assert any(np.array_equal(first, view) for view in turned)
    assert data.records[0].label == data.records[1].label
    assert not np.array_equal(data.image(0), data.image(1))


def test_source_takes_no_location() -> None:
    with pytest.raises(DataError, match="takes no location; drop 'somewhere'"):
        PhantomSource().load("somewhere")


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"area_min": 0.5, "area_max": 0.2}, "area_min 0.5 must not be above area_max 0.2"),
        ({"ita_min": 50, "ita_max": 10}, "ita_min 50.0 must not be above ita_max 10.0"),
        ({"nevus": 0, "melanoma": 0, "seborrheic_keratosis": 0}, "at least one of nevus, melanoma"),
        ({"hair": 1.2}, "hair = 1.2: input should be less than or equal to 1"),
        ({"size": 8}, "size = 8: input should be greater than or equal to 32"),
        ({"count": 0}, "count = 0"),
        ({"fractions": [0.5, 0.5, 0.5]}, "add up to 1"),
        ({"hairs": 1}, "unknown key 'hairs'; allowed are nevus, melanoma"),
    ],
)
def test_bad_options_are_explained(values: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        build_config(PhantomSource.Config, values, where="data")


def test_registration_loads_no_torch() -> None:
    code = "import sys, lesionforge.plugins.data.phantom; sys.exit('torch' in sys.modules or 'numpy' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 0
