"""A trained classification network with all it needs to be used again, and the folder it is published in."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ..supervised.checkpoint import WEIGHTS_FILE, load_exactly, read_info, read_weights
from .config import ClassifierInfo
from .networks import ClassificationNetwork, build_network


class Classifier(nn.Module):
    """A classification network that normalises its input itself."""

    mean: Tensor
    std: Tensor

    def __init__(self, network: ClassificationNetwork, mean: tuple[float, ...], std: tuple[float, ...]) -> None:
        super().__init__()
        self.network = network
        self.register_buffer("mean", torch.tensor(mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, K) logits, not divided by the temperature, for (N, 3, H, W) images in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    def observe(self, images: Tensor) -> tuple[Tensor | None, Tensor]:
        """Return maps and features of images in [0, 1], see :meth:`ClassificationNetwork.observe`."""
        return self.network.observe((images - self.mean) / self.std)

    def on(self, device: torch.device) -> Self:
        """Move the network to ``device``, channels last, and return it."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_classifier(path: str | Path) -> tuple[Classifier, ClassifierInfo]:
    """Return the network published in the folder ``path``, on the CPU and in evaluation mode, and what it is.

    Raises:
        CheckpointError: the folder is missing or damaged, or holds another kind of checkpoint.
    """
    folder = Path(path)
    info = read_info(folder, ClassifierInfo, trainer="classification")
    weights = read_weights(folder / WEIGHTS_FILE)
    with torch.random.fork_rng(devices=[]):
        classifier = Classifier(build_network(info, len(info.classes)), info.mean, info.std)
    load_exactly(classifier, weights, where=str(folder / WEIGHTS_FILE))
    return classifier.eval(), info
