"""lesion-masks and constructed-masks: shapes as real ones, one component each, errors."""

from __future__ import annotations

import hashlib
import math
from pathlib import Path

import numpy as np
import pytest
import torch
from scipy import ndimage
from scipy.stats import ks_2samp
from skimage.measure import regionprops

import lesionforge as lf
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import ConfigError, PluginError, PluginFailure
from lesionforge.plugins.promptcontrol.drawing import Finish, blurred, deformation_fields, draw, odd, transform
from lesionforge.plugins.promptcontrol.shapes import Shapes, measure
from lesionforge.testing import assert_contract, disc_dataset

ISIC = Path(__file__).parents[4] / "shared" / "data" / "isic256"
PLAIN = Finish(0, 0, 0)
SOME = 64


def opened(settings: str, data: Dataset | None = None, name: str = "lesion-masks"):
    return lf.Chain.parse(f"{name}({settings})").open(data=data, device="cpu", precision="fp32")[0]


def ellipse(area: float, elongation: float, angle: float, size: int = 256) -> torch.Tensor:
    shape = Shapes.from_table(torch.tensor([[area, 0.45, 0.55, elongation, angle, 0.0]]))
    return draw(shape, torch.zeros(1), torch.zeros(1, 2, 48, 48), size, PLAIN)


def measured(dataset: Dataset, count: int) -> Shapes:
    masks = dataset.with_masks().resized(256).masks_array(range(min(count, len(dataset))))
    return measure(torch.from_numpy(masks)[:, None])


def shares(shapes: Shapes) -> dict[str, np.ndarray]:
    return {
        "area": shapes.area.numpy(),
        "eccentricity": shapes.eccentricity.numpy(),
        "horizontal": shapes.centre[:, 0].numpy(),
        "vertical": shapes.centre[:, 1].numpy(),
        "roughness": shapes.roughness.numpy(),
    }


def shuffled(data: Dataset) -> Dataset:
    return data.take(np.random.default_rng(0).permutation(len(data)).tolist())


@pytest.mark.parametrize(
    ("chain", "data"),
    [
        ("constructed-masks(size=32, max_elongation=2)", None),
        ("lesion-masks(size=32)", disc_dataset()),
        ("lesion-masks(size=32, route='transformed', smoothing=0.02)", disc_dataset()),
    ],
)
def test_the_contract_holds(chain, data):
    assert_contract(chain, data=data)


@pytest.mark.parametrize(
    "name, settings",
    [("constructed-masks", "max_deformation=0.4"), ("lesion-masks", ""), ("lesion-masks", "route='transformed'")],
)
def test_every_mask_is_one_component(name, settings):
    data = lf.load_dataset("phantom(count=24, size=96)")
    masks = opened(f"size=96{settings and ', '}{settings}", data, name)(lf.Batch.blank(24)).masks
    assert set(masks.unique().tolist()) == {0, 1}
    counts = [ndimage.label(mask[0].numpy(), np.ones((3, 3)))[1] for mask in masks]
    assert counts == [1] * 24
    assert len({mask.numpy().tobytes() for mask in masks}) == 24


def test_measures_are_those_of_an_independent_library():
    rng = np.random.default_rng(1)
    values = list(zip(rng.uniform(0.03, 0.2, 8), rng.uniform(1.2, 2, 8), rng.uniform(-1.4, 1.4, 8), strict=True))
    masks = torch.cat([ellipse(*map(float, row)) for row in values])
    shapes = measure(masks)
    for row, mask in enumerate(masks):
        (region,) = regionprops(mask[0].numpy().astype(int))
        assert float(shapes.area[row]) == pytest.approx(region.area / 256**2, rel=1e-4)
        y, x = region.centroid
        assert shapes.centre[row].tolist() == pytest.approx([(x + 0.5) / 256, (y + 0.5) / 256], abs=1e-3)
        assert float(shapes.eccentricity[row]) == pytest.approx(region.eccentricity, abs=0.01)
        turned = math.remainder(float(shapes.angle[row]) - values[row][2], math.pi)
        assert abs(turned) < 0.03
        assert abs(float(shapes.roughness[row])) < 0.02


def test_teeth_make_a_border_rough_and_an_empty_mask_has_no_shape():
    angle = torch.atan2(*(torch.stack(torch.meshgrid(*[torch.arange(256) - 127.5] * 2, indexing="ij"))))
    distance = torch.stack(torch.meshgrid(*[torch.arange(256) - 127.5] * 2, indexing="ij")).norm(dim=0)
    toothed = torch.stack([(distance < 70 + depth * torch.sin(15 * angle)).float() for depth in (0, 5, 10)])
    roughness = measure(toothed[:, None]).roughness
    assert roughness[0].abs() < 0.01 and bool((roughness.diff() > 0.1).all())
    assert bool(measure(torch.zeros(1, 1, 64, 64)).table().isnan().all())


def test_without_deformation_the_mask_is_the_ellipse():
    mask = ellipse(0.1, 1.8, 0.6)[0, 0]
    y, x = (torch.stack(torch.meshgrid(*[torch.arange(256) + 0.5] * 2, indexing="ij")) / 256).double()
    x, y, radius = x - 0.45, y - 0.55, math.sqrt(0.1 / math.pi)
    long = (math.cos(0.6) * x + math.sin(0.6) * y) / (radius * math.sqrt(1.8))
    short = (math.cos(0.6) * y - math.sin(0.6) * x) / (radius / math.sqrt(1.8))
    assert (mask != (long**2 + short**2 <= 1).float()).sum() < 12


def test_the_area_is_kept_whatever_is_deformed_and_cut_off():
    count = 6
    columns = torch.tensor([[0.3, 0.2, 0.8, 1.5, 0.4, 0.0]]).expand(count, -1)
    fields = deformation_fields(list(range(count)), torch.ones(count), stream=1, step=0)
    masks = draw(Shapes.from_table(columns), torch.full((count,), 0.2), fields, 128, PLAIN)
    assert masks.mean((1, 2, 3)).tolist() == pytest.approx([0.3] * count, abs=0.01)


def test_opening_removes_what_is_thin_and_closing_fills_what_is_narrow():
    mask = torch.zeros(1, 1, 64, 64)
    mask[..., 16:48, 16:48] = 1
    whiskered = mask.clone()
    whiskered[..., 30:32, 48:60] = 1
    whiskered[..., 16:30, 30] = 0
    made = Finish(0, 5 / 64, 5 / 64)(whiskered)
    assert made[..., 30:32, 50:60].sum() == 0 and made[..., 20:30, 30].all()
    assert [odd(width) for width in (0.2, 1, 2.2, 3.9, 5.12, 7)] == [1, 1, 3, 3, 5, 7]


def test_blur_is_a_gaussian():
    mask = ellipse(0.1, 1.3, 0.2, 64)
    expected = ndimage.gaussian_filter(mask[0, 0].double().numpy(), 2.0, mode="nearest", truncate=4)
    np.testing.assert_allclose(blurred(mask, 2.0)[0, 0].numpy(), expected, atol=1e-5)


def test_a_transform_turns_and_scales_about_the_lesion():
    mask = ellipse(0.06, 2.0, 0.3)
    moved = transform(
        mask, torch.tensor([1.2]), torch.tensor([0.5]), torch.zeros(1), torch.zeros(1, 2, 48, 48), PLAIN
    )
    before, after = measure(mask), measure(moved)
    assert float(after.area / before.area) == pytest.approx(1.44, rel=0.01)
    assert float(after.angle - before.angle) == pytest.approx(0.5, abs=0.02)
    torch.testing.assert_close(after.centre, before.centre, atol=3e-3, rtol=0)


def assert_fit_passes_where_defaults_fail(data: Dataset, count: int) -> None:
    """Masks fitted to a half of the data are not told from the other half; unfitted ones are, by every measure."""
    half = len(data) // 2
    fitted = opened("size=256", shuffled(data).take(range(half)))
    held_out = shares(measured(shuffled(data).take(range(half, len(data))), count))
    made = shares(measure(torch.cat([fitted(lf.Batch.blank(32, first=at)).masks for at in range(0, SOME, 32)])))
    plain = shares(measure(opened("size=256", name="constructed-masks")(lf.Batch.blank(SOME)).masks))
    for name, real in held_out.items():
        assert ks_2samp(real, made[name]).pvalue > 0.01, name
    told = {name for name, real in held_out.items() if ks_2samp(real, plain[name]).pvalue < 1e-3}
    assert {"area", "eccentricity", "horizontal", "vertical"} <= told


def test_fitted_shapes_are_those_of_phantoms():
    assert_fit_passes_where_defaults_fail(lf.load_dataset("phantom(count=160, size=64, repeats=0)"), 80)


@pytest.mark.skipif(not ISIC.is_dir(), reason="no ISIC images here")
def test_fitted_shapes_are_those_of_real_masks():
    assert_fit_passes_where_defaults_fail(lf.load_dataset(f"isic2018:{ISIC}"), 400)


def test_transformed_masks_name_the_real_one():
    data = disc_dataset()
    batch = opened("size=32, route='transformed', max_scale=1, max_turn=0, max_deformation=0, opening=0, closing=0",
                   data)(lf.Batch.blank(8))  # fmt: skip
    train = data.split("train")
    real = {hashlib.sha256(mask.tobytes()).hexdigest(): mask for mask in train.masks_array(range(len(train)))}
    for mask, facts in zip(batch.masks, batch.provenance, strict=True):
        assert (mask[0].numpy() != real[facts["real_mask_sha256"]]).mean() < 0.01


def test_a_case_that_comes_out_empty_is_drawn_again_by_itself(monkeypatch):
    stage = opened("size=32", name="constructed-masks")
    batch, original = lf.Batch.blank(4), type(stage)._draw
    first, second = original(stage, batch.seeds, 0), original(stage, batch.seeds, 1)

    def failing(self, seeds, attempt):
        masks = original(self, seeds, attempt)
        if attempt == 0:
            masks[2] = 0
        return masks

    monkeypatch.setattr(type(stage), "_draw", failing)
    made = stage(batch).masks
    assert torch.equal(made[2], second[2]) and torch.equal(made[[0, 1, 3]], first[[0, 1, 3]])


def test_a_mask_that_stays_empty_is_an_error_that_says_what_to_do(monkeypatch):
    stage = opened("size=32", name="constructed-masks")
    monkeypatch.setattr(type(stage), "_draw", lambda self, seeds, attempt: torch.zeros(len(seeds), 1, 32, 32))
    with pytest.raises(PluginFailure, match=r"mask of case-00000000 came out empty 8 times; lower opening"):
        stage(lf.Batch.blank(2))


def test_empty_masks_are_left_out_and_only_empty_ones_are_an_error():
    empty = np.zeros((16, 16), np.uint8)
    data = Dataset("none", (Record("a", np.zeros((16, 16, 3), np.uint8), empty),))
    for route in ("constructed", "transformed"):
        with pytest.raises(PluginError, match="every mask of none is empty"):
            opened(f"size=16, route='{route}'", data)


def test_real_data_are_asked_for():
    with pytest.raises(ConfigError, match="lesion-masks must be fitted on real data"):
        opened("size=32")


def test_a_run_makes_its_cases_again_without_the_data(tmp_path):
    chain = lf.Chain.parse("lesion-masks(size=32) | phantom(size=32)")
    run = chain.run(count=4, output=tmp_path / "run", data=disc_dataset(), device="cpu", report=False)
    assert run.regenerate("case-00000002").identical
