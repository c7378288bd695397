"""Frechet and kernel distances against SciPy's matrix root, torch-fidelity and their definitions."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from scipy.linalg import sqrtm

from lesionforge.core.errors import DataError
from lesionforge.plugins.quality.extractors import FID_LABEL
from lesionforge.plugins.quality.frechet import distances, frechet_distance, kernel_distance


def sets(n: int = 60, m: int = 45, width: int = 8) -> tuple[torch.Tensor, torch.Tensor]:
    rng = np.random.default_rng(3)
    a = rng.normal(size=(n, width)) @ rng.normal(size=(width, width))
    b = rng.normal(size=(m, width)) @ rng.normal(size=(width, width)) + 0.5
    return torch.from_numpy(a), torch.from_numpy(b)


def test_frechet_distance_matches_scipy() -> None:
    a, b = (x.numpy() for x in sets())
    covariances = [np.cov(x, rowvar=False) for x in (a, b)]
    root = sqrtm(covariances[0] @ covariances[1])
    expected = ((a.mean(0) - b.mean(0)) ** 2).sum() + np.trace(covariances[0] + covariances[1] - 2 * root.real)
    assert frechet_distance(*sets()) == pytest.approx(expected, rel=1e-9)


def test_frechet_and_kernel_distance_match_torch_fidelity() -> None:
    fid, kid = pytest.importorskip("torch_fidelity.metric_fid"), pytest.importorskip("torch_fidelity.metric_kid")
    a, b = sets(50, 50)
    statistics = [fid.fid_features_to_statistics(x) for x in (a, b)]
    expected = fid.fid_statistics_to_metric(*statistics, False)["frechet_inception_distance"]
    assert frechet_distance(a, b) == pytest.approx(expected, rel=1e-9)
    expected = kid.kid_features_to_metric(a, b, kid_subsets=1, kid_subset_size=50, verbose=False)
    assert kernel_distance(a, b) == pytest.approx(expected["kernel_inception_distance_mean"], rel=1e-9)


def test_kernel_distance_is_the_unbiased_estimate() -> None:
    a, b = sets(7, 5, 3)

    def kernel(x: torch.Tensor, y: torch.Tensor) -> float:
        return float((x @ y / 3 + 1) ** 3)

    within = [np.mean([kernel(x[i], x[j]) for i in range(len(x)) for j in range(len(x)) if i != j]) for x in (a, b)]
    between = np.mean([kernel(x, y) for x in a for y in b])
    assert kernel_distance(a, b) == pytest.approx(sum(within) - 2 * between, rel=1e-10)


def test_distances_are_zero_for_equal_sets_and_symmetric() -> None:
    a, b = sets()
    assert frechet_distance(a, a) == pytest.approx(0, abs=1e-10)
    assert frechet_distance(a, b) == pytest.approx(frechet_distance(b, a), rel=1e-10)
    assert kernel_distance(a, b) == pytest.approx(kernel_distance(b, a), rel=1e-10)


def test_small_sets_get_a_reason_instead_of_a_frechet_distance() -> None:
    a, b = sets(60, 8, 8)
    with pytest.raises(DataError, match=r"at least 9 images in each set, but the second has 8.*kernel distance"):
        frechet_distance(a, b)
    found = distances(a, b, "segmenter encoder")
    assert list(found) == ["Frechet distance, segmenter encoder", "kernel distance, segmenter encoder"]
    assert "at least 9 images" in str(found["Frechet distance, segmenter encoder"])
    assert found["kernel distance, segmenter encoder"] == kernel_distance(a, b)


def test_only_the_standard_network_is_called_fid() -> None:
    assert list(distances(*sets(), FID_LABEL)) == ["FID", "KID"]


def test_bad_features_are_refused() -> None:
    a, b = sets()
    with pytest.raises(DataError, match=r"\(60, 8\) and \(45, 7\)"):
        kernel_distance(a, b[:, :7])
    with pytest.raises(DataError, match="not finite"):
        frechet_distance(a, b.fill_(float("nan")))
    with pytest.raises(DataError, match="at least 2"):
        kernel_distance(a[:1], a)
