"""The annotator attention-mask: from soft masks to masks, their uncertainty and their overlap with the condition."""

from __future__ import annotations

import pytest
import torch
from torch.nn import functional

import lesionforge as lf
from lesionforge.core.errors import PluginError
from lesionforge.kernels import extract_masks
from lesionforge.testing import assert_contract

from . import literal

DATA = lf.load_dataset("phantom(count=12, size=64, border_touch=0)")


def annotate(batch: lf.Batch, settings: str = "") -> lf.Batch:
    return lf.Chain.parse(f"attention-mask({settings})").open(device="cpu", precision="fp32")[0](batch)


def with_maps(edge: int, noise: float = 0.0) -> lf.Batch:
    """Real-looking masks as conditions, and maps that show them at ``edge`` pixels with noise."""
    batch = DATA.fetch(range(12))
    coarse = functional.adaptive_avg_pool2d(batch.masks, edge)
    coarse = coarse + noise * torch.randn(coarse.shape, generator=torch.Generator().manual_seed(0))
    return batch.with_columns(soft_masks=coarse.clamp(0, 1))


def test_the_contract_holds():
    assert_contract("attention-mask", data=DATA)


@pytest.mark.parametrize("edge", [16, 32, 64])
def test_masks_of_clean_maps_meet_their_conditions(edge):
    done = annotate(with_maps(edge))
    assert done.masks.shape == (12, 1, 64, 64)
    assert float(done.scores["condition_iou"].min()) > {16: 0.75, 32: 0.88, 64: 0.95}[edge]


def test_settings_are_those_of_the_operation():
    batch = with_maps(32, noise=0.2)
    done = annotate(batch, "closing=7, largest_component=false, smoothing=1.5")
    expected = extract_masks(batch.soft_masks, 64, closing=7, largest_component=False, smoothing=1.5)
    assert torch.equal(done.masks, expected)
    assert not torch.equal(done.masks, annotate(batch).masks)


def test_by_the_released_code_maps_become_bytes_before_they_are_enlarged():
    batch = with_maps(32, noise=0.2)
    done, plain = annotate(batch, "compat='reference'"), annotate(batch, "closing=0, largest_component=false")
    for soft, mask in zip(batch.soft_masks, done.masks, strict=True):
        stretched = (soft[0] - soft.min()) / (soft.max() - soft.min())
        assert (mask[0].bool().numpy() == literal.otsu_of_enlarged(stretched, 64)).all()
    differing = (done.masks != plain.masks).float().mean()
    assert 0 < float(differing) < 0.05
    assert not torch.equal(annotate(batch, "compat='reference', closing=5").masks, done.masks)
    assert not torch.equal(annotate(batch, "compat='reference', largest_component=true").masks, done.masks)


def test_uncertainty_rises_with_noise():
    values = [annotate(with_maps(32, noise)).scores["mask_uncertainty"] for noise in (0, 0.1, 0.3)]
    assert bool((values[0] < values[1]).all() and (2 * values[1] < values[2]).all())


def test_without_a_condition_there_is_no_overlap():
    batch = with_maps(32)
    bare = lf.Batch(batch.ids, batch.seeds, images=batch.images, soft_masks=batch.soft_masks)
    assert "condition_iou" not in annotate(bare).scores


def test_without_maps_it_says_what_is_missing():
    with pytest.raises(PluginError, match="attention-mask needs soft_masks"):
        annotate(DATA.fetch([0]))


def test_an_even_closing_is_refused_before_any_work():
    with pytest.raises(lf.LesionforgeError, match="closing"):
        lf.Chain.parse("attention-mask(closing=4)").open(device="cpu")


def test_images_that_are_not_square_are_refused():
    batch = with_maps(32)
    with pytest.raises(PluginError, match="images of 32 x 64 pixels where squares are needed"):
        annotate(lf.Batch(batch.ids, batch.seeds, images=batch.images[:, :, :32], soft_masks=batch.soft_masks))
