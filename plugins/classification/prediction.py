"""From images to probabilities of classes and to features with a trained classifier."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from ...core.context import Context
from ..supervised.images import network_input
from .classifier import Classifier
from .config import ClassifierInfo


@torch.no_grad()
def class_logits(classifier: nn.Module, images: Tensor, *, size: int, context: Context) -> Tensor:
    """Return (N, K) fp32 logits for (N, 3, H, W) images in [0, 1], which are resized to ``size``.

    ``classifier``, in evaluation mode, maps such images to logits.
    """
    with context.autocast():
        logits = classifier(network_input(images, size))
    return logits.float()


def class_probabilities(classifier: Classifier, info: ClassifierInfo, images: Tensor, context: Context) -> Tensor:
    """Return (N, K) fp32 calibrated probabilities for (N, 3, H, W) images in [0, 1]."""
    logits = class_logits(classifier, images, size=info.size, context=context)
    return (logits / info.temperature).softmax(dim=1)


def label_scores(probabilities: Tensor, labels: Sequence[int]) -> dict[str, Tensor]:
    """Return ``label_probability`` (N,), and ``label_margin`` (N,) over the most probable other class."""
    truth = torch.tensor(list(labels), device=probabilities.device)[:, None]
    of_label = probabilities.gather(1, truth)[:, 0]
    others = probabilities.scatter(1, truth, -torch.inf).amax(dim=1)
    return {"label_probability": of_label, "label_margin": of_label - others}


@torch.no_grad()
def maps_and_features(classifier: Classifier, images: Tensor, *, size: int) -> tuple[Tensor | None, Tensor]:
    """Return the last (N, C, h, w) maps, None of a network of tokens, and the (N, D) features before the logits.

    Always in fp32: distances between feature distributions are differences of close numbers.
    """
    with torch.autocast(images.device.type, enabled=False):
        return classifier.observe(network_input(images, size))
