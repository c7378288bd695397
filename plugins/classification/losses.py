"""Losses of classification on logits, computed in fp32 or better whatever autocast says."""

from __future__ import annotations

from collections.abc import Callable

import torch
import torch.nn.functional as F
from torch import Tensor

from ...core.errors import ConfigError
from .config import ClassificationConfig

Loss = Callable[[Tensor, Tensor], Tensor]


def cross_entropy(logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, smoothing: float = 0.0) -> Tensor:
    """Return the cross-entropy of (N, K) ``logits`` against (N,) class numbers, averaged over images.

    Args:
        weights: (K,) weights of the classes; the mean is then weighted by those of the images' classes.
        smoothing: share of each target that is given to all classes alike (Szegedy et al. 2016).
    """
    return F.cross_entropy(_exact(logits), labels, weight=weights, label_smoothing=smoothing)


def focal_loss(logits: Tensor, labels: Tensor, *, weights: Tensor | None = None, gamma: float = 2.0) -> Tensor:
    """Return the mean of -(1 - p)^gamma log p over images, p the probability of the label (Lin et al. 2017, eq. 4).

    ``weights`` (K,) of the classes weigh the mean as in :func:`cross_entropy`; equation 5 does not divide by them.
    """
    logits, truth = _exact(logits), labels[:, None]
    total = logits.logsumexp(dim=1)
    log_p = logits.gather(1, truth)[:, 0] - total
    log_rest = logits.scatter(1, truth, -torch.inf).logsumexp(dim=1) - total  # 1 - p without cancellation
    losses = -torch.exp(gamma * log_rest) * log_p
    if weights is None:
        return losses.mean()
    shares = weights[labels]
    return (shares * losses).sum() / shares.sum()


def class_weights(config: ClassificationConfig, classes: tuple[str, ...], labels: Tensor) -> Tensor | None:
    """Return the (K,) fp32 weights that ``config`` asks for, None for none.

    ``balanced`` is n / (k n_class), as scikit-learn has it, k the number of classes that occur among the n ``labels``;
    a class without a training image has weight 0.

    Raises:
        ConfigError: a table names other classes, or gives no weight to any training image.
    """
    if config.class_weights == "none":
        return None
    counts = torch.bincount(labels.cpu(), minlength=len(classes)).double()
    if isinstance(config.class_weights, str):
        return torch.where(counts > 0, counts.sum() / ((counts > 0).sum() * counts), 0.0).float()
    if set(config.class_weights) != set(classes):
        named = ", ".join(config.class_weights) or "nothing"
        raise ConfigError(f"class_weights names {named}, but the classes are {', '.join(classes)}")
    weights = torch.tensor([config.class_weights[name] for name in classes])
    if not bool((weights[counts > 0] > 0).all()):
        raise ConfigError("class_weights must be above 0 for every class that has training images")
    return weights


def make_loss(config: ClassificationConfig, weights: Tensor | None) -> Loss:
    """Return the loss that ``config`` names, with its parameters."""
    if config.loss == "focal":
        return lambda logits, labels: focal_loss(logits, labels, weights=weights, gamma=config.focal_gamma)
    smoothing = config.label_smoothing
    return lambda logits, labels: cross_entropy(logits, labels, weights=weights, smoothing=smoothing)


def _exact(logits: Tensor) -> Tensor:
    return logits.to(torch.promote_types(logits.dtype, torch.float32))
