"""The shrunk Gaussian and its leave-one-out distances against scikit-learn, fitted once for each image left out."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from sklearn.covariance import LedoitWolf

from lesionforge.core.errors import DataError
from lesionforge.plugins.quality.gaussian import ShrunkGaussian, leave_one_out, mahalanobis


def features(count: int, width: int, seed: int = 0) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=(count, width)) @ rng.normal(size=(width, width)) + 10 * rng.normal(size=width)


SHAPES = [(4, 1), (5, 3), (40, 6), (30, 80), (12, 200)]


@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_fit_and_distances_match_scikit_learn(count: int, width: int) -> None:
    real, synthetic = features(count, width), features(7, width, seed=1)
    expected = LedoitWolf().fit(real)
    found = ShrunkGaussian.fit(torch.from_numpy(real))
    assert found.shrinkage == pytest.approx(expected.shrinkage_, rel=1e-9)
    precision = found.whitening.T @ found.whitening
    np.testing.assert_allclose(
        precision.numpy(), expected.precision_, rtol=1e-6, atol=1e-9 * abs(expected.precision_).max()
    )
    distances = mahalanobis(torch.from_numpy(synthetic), found.mean, found.whitening)
    np.testing.assert_allclose(distances.numpy(), expected.mahalanobis(synthetic), rtol=1e-8)


@pytest.mark.parametrize(("count", "width"), SHAPES)
def test_leave_one_out_matches_one_fit_for_each_image(count: int, width: int) -> None:
    real = features(count, width)
    expected = [
        LedoitWolf().fit(np.delete(real, row, axis=0)).mahalanobis(real[row : row + 1])[0] for row in range(count)
    ]
    np.testing.assert_allclose(leave_one_out(torch.from_numpy(real)).numpy(), expected, rtol=1e-7)


def test_an_outlier_does_not_hide_itself() -> None:
    real = features(50, 5)
    real[17] += 1000
    found = leave_one_out(torch.from_numpy(real))
    gaussian = ShrunkGaussian.fit(torch.from_numpy(real))
    within = mahalanobis(torch.from_numpy(real), gaussian.mean, gaussian.whitening)
    assert found.argmax() == 17 and found[17] > 100 * within[17]


def test_a_row_does_not_depend_on_its_neighbours() -> None:
    gaussian = ShrunkGaussian.fit(torch.from_numpy(features(60, 33)))
    rows = torch.from_numpy(features(9, 33, seed=2)).float()
    together = mahalanobis(rows, gaussian.mean, gaussian.whitening)
    alone = torch.cat([mahalanobis(row[None], gaussian.mean, gaussian.whitening) for row in rows])
    assert torch.equal(together, alone)
    assert mahalanobis(rows[:0], gaussian.mean, gaussian.whitening).shape == (0,)


def test_useless_features_are_refused() -> None:
    with pytest.raises(DataError, match="at least 4"):
        leave_one_out(torch.randn(3, 2))
    with pytest.raises(DataError, match="same features"):
        ShrunkGaussian.fit(torch.ones(9, 2))
