"""Distances between the feature sets of real and synthetic images. Everything in float64 on the CPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch

from ...core.errors import DataError
from .extractors import FID_LABEL

if TYPE_CHECKING:
    from torch import Tensor

CHUNK_ROWS = 1024


def frechet_name(label: str) -> str:
    """Return what a Frechet distance in the feature space of the extractor ``label`` may be called."""
    return "FID" if label == FID_LABEL else f"Frechet distance, {label}"


def kernel_name(label: str) -> str:
    """Return what a kernel distance in the feature space of the extractor ``label`` may be called."""
    return "KID" if label == FID_LABEL else f"kernel distance, {label}"


def frechet_distance(a: Tensor, b: Tensor) -> float:
    """Return |mu_a - mu_b|^2 + tr(S_a + S_b - 2 (S_a S_b)^(1/2)) of the (n, D) and (m, D) features' Gaussians.

    Heusel et al., GANs Trained by a Two Time-Scale Update Rule (2017), eq. 6; covariances have the divisor n - 1. The
    trace of the root is the nuclear norm of R_a R_b^T, where R are the triangular factors of the centred features:
    the same number without the root of a nearly singular product.

    Raises:
        DataError: the widths differ, values are not finite, or a set has fewer than D + 1 images.
    """
    a, b = _checked(a, b)
    check_sample_sizes(len(a), len(b), a.shape[1])
    return frechet_of_gaussians(a, b)


def check_sample_sizes(first: int, second: int, width: int) -> None:
    """Raise DataError unless both sets have the ``width`` + 1 images that give covariances of full rank."""
    for name, images in (("first", first), ("second", second)):
        if images < width + 1:
            raise DataError(
                f"a Frechet distance of {width} features needs at least {width + 1} images in each set, but the {name} "
                f"has {images}: its covariance would be singular; use the kernel distance (KID), which is unbiased"
            )


def frechet_of_gaussians(a: Tensor, b: Tensor) -> float:
    """Return the distance of :func:`frechet_distance` for float64 features, however few there are."""
    root_a, root_b = (torch.linalg.qr((x - x.mean(0)) / (len(x) - 1) ** 0.5).R for x in (a, b))
    overlap = torch.linalg.svdvals(root_a @ root_b.T).sum()
    shift = (a.mean(0) - b.mean(0)).square().sum()
    return float((shift + root_a.square().sum() + root_b.square().sum() - 2 * overlap).clamp_min(0))


def kernel_distance(a: Tensor, b: Tensor) -> float:
    """Return the unbiased squared MMD of (n, D) and (m, D) features under the kernel (x.y / D + 1)^3.

    Binkowski et al., Demystifying MMD GANs (2018): KID in Inception's feature space. Computed once over all images,
    where others average random subsets of the same expectation. Slightly negative values are possible.

    Raises:
        DataError: the widths differ, values are not finite, or a set has fewer than two images.
    """
    a, b = _checked(a, b)
    check_pairs(len(a), len(b))
    within = [(_kernel_sum(x, x) - float(polynomial_kernel((x * x).sum(1), x.shape[1]).sum())) for x in (a, b)]
    n, m = len(a), len(b)
    return within[0] / (n * (n - 1)) + within[1] / (m * (m - 1)) - 2 * _kernel_sum(a, b) / (n * m)


def check_pairs(first: int, second: int) -> None:
    """Raise DataError unless both sets have the two images that give a pair within each."""
    if min(first, second) < 2:
        raise DataError(f"a kernel distance needs at least 2 images in each set, not {first} and {second}")


def distances(real_features: Tensor, synthetic_features: Tensor, label: str) -> dict[str, float | str]:
    """Return the distances between real and synthetic (N, D) features under the names that ``label`` permits.

    A Frechet distance that the number of images does not allow is replaced by its reason, a text.
    """
    try:
        frechet: float | str = frechet_distance(real_features, synthetic_features)
    except DataError as error:
        frechet = str(error)
    kernel = kernel_distance(real_features, synthetic_features)
    return {frechet_name(label): frechet, kernel_name(label): kernel}


def _checked(a: Tensor, b: Tensor) -> tuple[Tensor, Tensor]:
    a, b = a.detach().cpu().double(), b.detach().cpu().double()
    if a.ndim != 2 or b.ndim != 2 or a.shape[1] != b.shape[1]:
        raise DataError(f"feature sets have shapes {tuple(a.shape)} and {tuple(b.shape)}, not (n, D) and (m, D)")
    if not bool(a.isfinite().all() and b.isfinite().all()):
        raise DataError("a feature set has values that are not finite; check the extractor's weights and the images")
    return a, b


def polynomial_kernel(products: Tensor, width: int) -> Tensor:
    """Return (x.y / D + 1)^3 of products x.y of features of ``width`` D."""
    return (products / width + 1) ** 3


def _kernel_sum(a: Tensor, b: Tensor) -> float:
    return sum(float(polynomial_kernel(rows @ b.T, a.shape[1]).sum()) for rows in a.split(CHUNK_ROWS))
