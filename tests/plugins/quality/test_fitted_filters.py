"""feature-gate and lpips-outlier: fit, screen, refuse; with the test's own extractor."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from lesionforge.core.batch import Batch
from lesionforge.core.dataset import Dataset
from lesionforge.core.errors import ConfigError, DataError, PluginError
from lesionforge.core.testing import contract_rules, disc_dataset

FILTERS = {
    "feature-gate": "mahalanobis_colours",
    "lpips-outlier": "perceptual_colours",
}
NAMES = pytest.mark.parametrize("name", FILTERS)


@pytest.fixture(scope="module")
def real() -> Dataset:
    return disc_dataset(37, 32)


def strange(count: int = 3) -> torch.Tensor:
    """Images unlike any disc on skin."""
    return (
        torch.rand(count, 3, 32, 32, generator=torch.Generator().manual_seed(1))
        * torch.tensor([0.1, 1, 0.1])[:, None, None]
    )


@pytest.fixture
def fitted(ready, real):
    def create(name: str, **values):
        stage = ready("filter", name, extractor="colours", **values)
        stage.load_fit(stage.fit(real))
        return stage

    return create


@NAMES
def test_real_images_pass_at_their_percentile_and_strange_ones_do_not(fitted, ready, real, name) -> None:
    stage = ready("filter", name, extractor="colours", percentile=80)
    state = stage.fit(real)
    own, threshold = state[f"reference/{FILTERS[name]}"], state["threshold"]
    assert own.shape == (37,) and own.dtype == torch.float64
    assert threshold == np.percentile(own, 80)
    stage.load_fit(state)
    batch = stage(Batch.blank(3).with_columns(images=strange()))
    assert not any(batch.kept)
    for row, rejection in enumerate(batch.rejections):
        assert rejection.plugin == name and rejection.score == FILTERS[name]
        assert rejection.value == batch.scores[FILTERS[name]][row] > rejection.threshold == threshold
    fresh = disc_dataset(60, 32, seed=9).fetch(range(60))
    assert sum(fitted(name, percentile=100)(fresh).kept) > 50


def test_feature_gate_scores_are_distances_to_the_shrunk_gaussian(fitted, ready, real) -> None:
    extractor = ready("extractor", "colours")
    images = real.fetch(range(37)).images
    vectors = extractor.features(images).double().numpy()
    stage = fitted("feature-gate")
    found = stage(real.fetch(range(5))).scores["mahalanobis_colours"]
    np.testing.assert_allclose(found, LedoitWolf().fit(vectors).mahalanobis(vectors[:5]), rtol=1e-6)
    expected = [
        LedoitWolf().fit(np.delete(vectors, row, axis=0)).mahalanobis(vectors[row : row + 1])[0] for row in range(37)
    ]
    np.testing.assert_allclose(stage.fit(real)["reference/mahalanobis_colours"], expected, rtol=1e-6)


def test_lpips_outlier_scores_are_means_over_nearest_real_images(ready, real) -> None:
    stage = ready("filter", "lpips-outlier", extractor="colours", neighbours=3, map_size=0)
    state = stage.fit(real)
    stage.load_fit(state)
    images = torch.cat([real.fetch(range(37)).images, strange()])
    maps = [layer.double() for layer in ready("extractor", "colours").feature_maps(images)]
    units = [layer / layer.norm(dim=1, keepdim=True) for layer in maps]
    distances = sum((unit[:, None] - unit[None, :37]).square().sum(2).mean((2, 3)) for unit in units)
    own = distances[:37].clone().fill_diagonal_(torch.inf)
    expected = own.sort(dim=1).values[:, :3].mean(1)
    torch.testing.assert_close(state["reference/perceptual_colours"], expected, rtol=1e-5, atol=1e-9)
    found = stage(Batch.blank(3).with_columns(images=strange())).scores["perceptual_colours"]
    torch.testing.assert_close(found, distances[37:].sort(dim=1).values[:, :3].mean(1), rtol=1e-5, atol=1e-9)


@NAMES
def test_contract_of_the_role(registry, name) -> None:
    for rule in contract_rules(f'{name}(extractor="colours")', data=disc_dataset(12, 16), registry=registry):
        rule.check()


def test_contract_of_mask_quality(registry) -> None:
    for rule in contract_rules("mask-quality", data=disc_dataset(12, 16), registry=registry):
        rule.check()


@NAMES
def test_order_of_real_images_changes_no_verdict(ready, real, name) -> None:
    stage = ready("filter", name, extractor="colours")
    states = [stage.fit(real), stage.fit(real.take(range(len(real))[::-1]))]
    torch.testing.assert_close(states[0]["threshold"], states[1]["threshold"], rtol=1e-9, atol=0)


def test_the_gallery_is_bounded_and_independent_of_order(ready, real) -> None:
    stage = ready("filter", "lpips-outlier", extractor="colours", gallery=10)
    chosen = stage.fit(real)["gallery"]
    assert len(chosen) == 10
    turned = stage.fit(real.take(range(len(real))[::-1]))["gallery"]
    assert torch.equal(turned.flip(0), chosen)
    with pytest.raises(ConfigError, match=r"10 real images take .* GiB, more than memory_gib"):
        ready("filter", "lpips-outlier", extractor="colours", gallery=10, memory_gib=1e-9).fit(real)


@NAMES
def test_images_that_are_not_numbers_are_rejected(fitted, real, name) -> None:
    batch = real.fetch(range(2))
    batch.images[1] = float("nan")
    assert fitted(name, percentile=100)(batch).kept == (True, False)


@NAMES
def test_misuse_is_one_clear_line(ready, fitted, real, name) -> None:
    images = real.fetch(range(2))
    with pytest.raises(PluginError, match=f"stage {name} has not been fitted"):
        ready("filter", name, extractor="colours")(images)
    with pytest.raises(PluginError, match=f"stage {name} needs images"):
        fitted(name)(Batch.blank(1))
    with pytest.raises(PluginError, match=r"fitted on real images of 32x32 pixels, not 16x16.*data\.size=16"):
        fitted(name)(disc_dataset(2, 16).fetch(range(2)))
    with pytest.raises(DataError, match="need"):
        ready("filter", name, extractor="colours").fit(real.take(range(3)))
    with pytest.raises(PluginError, match="no extractor is called 'no-such'"):
        ready("filter", name, extractor="no-such")
    state = dict(fitted(name).fit(real), measure=torch.tensor(list(b"something else"), dtype=torch.uint8))
    with pytest.raises(PluginError, match="was fitted with 'something else'"):
        fitted(name).load_fit(state)


@NAMES
def test_a_broken_extractor_is_noticed_while_fitting(ready, real, monkeypatch, name) -> None:
    stage = ready("filter", name, extractor="colours")
    broken = [torch.full((16, 2, 4, 4), float("nan"))]
    monkeypatch.setattr(type(stage._extractor), "feature_maps", lambda self, images: broken)
    with pytest.raises(DataError, match=f"features of image {real.ids[0]!r} are not finite"):
        stage.fit(real)


@NAMES
def test_fit_reports_progress_and_names_its_measure(ready, real, name) -> None:
    stage = ready("filter", name, extractor="colours")
    calls: list[tuple[int, int]] = []
    stage.context = replace(stage.context, progress=lambda done, total, metrics: calls.append((done, total)))
    measure = bytes(stage.fit(real)["measure"].tolist()).decode()
    assert calls == [(16, 37), (32, 37), (37, 37)]
    assert (
        measure
        == {
            "feature-gate": "squared Mahalanobis distance, colours of a test",
            "lpips-outlier": "perceptual distance, colours of a test, maps averaged to 8x8",
        }[name]
    )
    assert json.dumps(measure)
