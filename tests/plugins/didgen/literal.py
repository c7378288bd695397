"""DiDGen's equations written out slowly: every N x N map exists, and sums run over pixels one by one."""

from __future__ import annotations

import math

import numpy as np
import torch
from PIL import Image
from scipy import ndimage
from torch import Tensor
from torch.nn import functional


def mean_map(query: Tensor, key: Tensor) -> Tensor:
    """(B, N, S), equation 2, the mean over layers and heads."""
    return torch.softmax(query @ key.mT / math.sqrt(query.shape[-1]), dim=-1).mean(1)


def area_mask(mask: Tensor, edge: int) -> Tensor:
    """(edge, edge) shares of the square blocks of one (H, H) mask."""
    step = mask.shape[-1] // edge
    return torch.stack([
        torch.stack([mask[y * step : (y + 1) * step, x * step : (x + 1) * step].mean() for x in range(edge)])
        for y in range(edge)
    ])  # fmt: skip


def region_loss(maps: Tensor, tokens: list[int], mask: Tensor) -> Tensor:
    """Equation 3 for one case, maps (N, S); the norm as a mean over pixels."""
    edge = math.isqrt(len(maps))
    lesion = area_mask(mask, edge).flatten()
    total = torch.zeros((), dtype=maps.dtype)
    for token, region in zip(tokens, (lesion, 1 - lesion), strict=True):
        for pixel in range(len(maps)):
            total = total + (maps[pixel, token] - region[pixel]) ** 2 / len(maps)
    return total / 2


def blurred(maps: Tensor) -> Tensor:
    """Maps (N, S) after a 3 x 3 Gaussian of deviation 0.5, mirrored without repeating the border."""
    weights = np.exp(-0.5 * (np.arange(-1, 2) / 0.5) ** 2)
    kernel = torch.from_numpy(np.outer(weights, weights) / weights.sum() ** 2).to(maps.dtype)
    edge = math.isqrt(len(maps))
    images = functional.pad(maps.T.reshape(-1, 1, edge, edge), (1, 1, 1, 1), mode="reflect")
    return functional.conv2d(images, kernel[None, None]).flatten(1).T


def self_loss(maps: Tensor, mask: Tensor, *, two_sided: bool = True) -> Tensor:
    """Equation 5 for one case, maps (N, N), over every pixel of every region."""
    edge = math.isqrt(len(maps))
    lesion = (area_mask(mask, edge).flatten() > 0.5).to(maps.dtype)
    total = torch.zeros((), dtype=maps.dtype)
    for region in (lesion, 1 - lesion)[: 1 + two_sided]:
        if region.sum() in (0, len(region)):
            continue
        for pixel in range(len(maps)):
            if region[pixel] == 1:
                total = total + (maps[pixel] * (1 - region)).sum() / (1 - region).sum()
    return total / 2


def soft_mask(cross: Tensor, self_maps: Tensor, token: int, tau: int) -> Tensor:
    """Equation 7 before thresholding, for one case: (edge, edge) in [0, 1], with the power of the matrix taken."""
    edge, source = math.isqrt(len(self_maps)), math.isqrt(len(cross))
    coarse = cross[:, token].reshape(1, 1, source, source)
    fine = functional.interpolate(coarse, size=(edge, edge), mode="bicubic", align_corners=False).flatten()
    product = torch.linalg.matrix_power(self_maps, tau) @ fine
    return ((product - product.min()) / (product.max() - product.min())).reshape(edge, edge)


def sharpened(maps: Tensor, end: int) -> Tensor:
    """The released code's A_C of one case, maps (N, S): columns of the words alone, without start and end token."""
    return torch.softmax(100 * maps[:, 1:end], dim=-1)


def released_mask(cross: Tensor, self_maps: Tensor, token: int, end: int, size: int) -> np.ndarray:
    """The released code's mask of one case, (size, size) bool."""
    edge, source = math.isqrt(len(self_maps)), math.isqrt(len(cross))
    power = torch.linalg.matrix_power(self_maps, 4)
    power = (power - power.min()) / (power.max() - power.min())
    coarse = sharpened(cross, end)[:, token - 1].reshape(1, 1, source, source)
    fine = functional.interpolate(coarse, size=(edge, edge), mode="bicubic", align_corners=False)
    product = (power @ fine.flatten()).reshape(edge, edge)
    product = (product - product.min()) / (product.max() - product.min())
    return otsu_of_enlarged(product, size)


def otsu_of_enlarged(stretched: Tensor, size: int) -> np.ndarray:
    """Otsu's mask (size, size) of a map (E, E) in [0, 1]: first cut to bytes, then enlarged as Pillow does unasked."""
    import cv2

    levels = (255 * stretched).detach().numpy().astype(np.uint8)
    large = np.asarray(Image.fromarray(levels).resize((size, size)))
    return cv2.threshold(large, 0, 255, cv2.THRESH_BINARY + cv2.THRESH_OTSU)[1] > 0


def closed(mask: np.ndarray, size: int) -> np.ndarray:
    """Dilation, then erosion, by OpenCV's ellipse, on a boolean (H, W) mask, what lies outside being ignored."""
    import cv2

    element = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (size, size)).astype(bool)
    dilated = ndimage.binary_dilation(mask, element)
    return ndimage.binary_erosion(dilated, element, border_value=1)
