"""The real images' Gaussian in feature space, and how far an image lies from it. Everything in float64."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import torch

from ...core.errors import DataError

if TYPE_CHECKING:
    from torch import Tensor

MIN_IMAGES = 4  # without one of them three are left; two would give a covariance of rank one without shrinkage


@dataclass(frozen=True)
class ShrunkGaussian:
    """A Gaussian whose covariance is shrunk towards a multiple of the identity.

    Attributes:
        mean: (D,) float64.
        whitening: (D, D) float64 W with W Sigma W^T = I, so the squared Mahalanobis distance is |W (x - mean)|^2.
        shrinkage: weight of the identity in [0, 1].
    """

    mean: Tensor
    whitening: Tensor
    shrinkage: float

    @classmethod
    def fit(cls, features: Tensor) -> ShrunkGaussian:
        """Fit to (n, D) features with the shrinkage of Ledoit and Wolf, A well-conditioned estimator (2004).

        Raises:
            DataError: fewer than four images, or all their features are equal.
        """
        centred = _centred(features)
        values, vectors = _spectrum(centred)
        shrinkage, average = _shrinkage(
            count=torch.tensor(float(len(centred))),
            trace=values.sum(),
            square=values.square().sum(),
            fourth=centred.square().sum(1).square().sum(),
            width=centred.shape[1],
        )
        spread = (1 - shrinkage) * values + shrinkage * average
        return cls(features.double().mean(0), (vectors / spread.sqrt()).T.contiguous(), float(shrinkage))


def mahalanobis(features: Tensor, mean: Tensor, whitening: Tensor) -> Tensor:
    """Return (N,) squared distances of (N, D) features, each computed on its own so that no neighbour changes a bit."""
    # Products of matrix and vector may differ in their last bits with the alignment in memory, which copies share.
    whitening = whitening.clone()
    rows = [row.clone() for row in features.double() - mean]
    return torch.stack([(whitening @ row).square().sum() for row in rows]) if rows else features.new_zeros(0).double()


def leave_one_out(features: Tensor) -> Tensor:
    """Return (n,) squared distances of each of (n, D) features to the Gaussian of all the others.

    Exactly what n separate fits would give, from one eigendecomposition. With y the centred row, S the covariance
    (divisor n) and k = n - 1, leaving the row out gives S' = n/k (S - y y^T / k) and x - mean' = y n/k. Trace, square
    and fourth moment of S', hence its shrinkage, follow in closed form, the inverse by Sherman and Morrison.

    Raises:
        DataError: fewer than four images, or all their features are equal.
    """
    centred = _centred(features)
    values, vectors = _spectrum(centred)
    n, k = float(len(centred)), float(len(centred) - 1)
    rotated = centred @ vectors
    radius = centred.square().sum(1)
    through = (rotated.square() * values).sum(1)  # y^T S y
    offset = radius / k**2
    fourth = radius.square().sum() - radius.square()
    fourth = fourth + 4 / k * (centred @ (centred.T @ radius) - radius.square())
    fourth = fourth + 4 / k**2 * (n * through - radius.square())
    fourth = fourth + 2 * offset * (radius.sum() - radius) - 4 / k * offset * radius + k * offset.square()
    shrinkage, average = _shrinkage(
        count=torch.full_like(radius, k),
        trace=n / k * (values.sum() - radius / k),
        square=(n / k) ** 2 * (values.square().sum() - 2 * through / k + radius.square() / k**2),
        fourth=fourth,
        width=centred.shape[1],
    )
    scale = (1 - shrinkage) * n / k
    solved = (rotated.square() / (scale[:, None] * values + (shrinkage * average)[:, None])).sum(1)
    return (n / k) ** 2 * solved / (1 - scale / k * solved)


def _centred(features: Tensor) -> Tensor:
    if len(features) < MIN_IMAGES:
        raise DataError(f"a Gaussian of the real images needs at least {MIN_IMAGES} of them, not {len(features)}")
    centred = features.double() - features.double().mean(0)
    if not bool(centred.any()):
        raise DataError(f"all {len(features)} real images have the same features; the data or the extractor is wrong")
    return centred


def _spectrum(centred: Tensor) -> tuple[Tensor, Tensor]:
    values, vectors = torch.linalg.eigh(centred.T @ centred / len(centred))
    return values.clamp_min(0), vectors


def _shrinkage(*, count: Tensor, trace: Tensor, square: Tensor, fourth: Tensor, width: int) -> tuple[Tensor, Tensor]:
    """Return Ledoit and Wolf's shrinkage and the average variance that it shrinks to.

    Args:
        count: number of samples.
        trace: of the empirical covariance (divisor ``count``).
        square: its squared Frobenius norm.
        fourth: sum over samples of the fourth power of their distance to the mean.
        width: number D of features.
    """
    average = trace / width
    dispersion = (square - width * average.square()).clamp_min(0)  # |S - average I|^2
    error = ((fourth / count - square) / count).clamp_min(0)
    share = torch.where(dispersion > 0, error / dispersion.clamp_min(torch.finfo(torch.float64).tiny), 0.0)
    return share.clamp_max(1), average
