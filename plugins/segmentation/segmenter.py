"""A trained segmentation network with all it needs to be used again, and the folder it is published in."""

from __future__ import annotations

from pathlib import Path
from typing import Self

import torch
from torch import Tensor, nn

from ..supervised.checkpoint import (
    WEIGHTS_FILE,
    load_exactly,
    load_pretrained,
    read_info,
    read_weights,
    save_checkpoint,
)
from .config import SegmenterInfo
from .models.registry import build_network


class Segmenter(nn.Module):
    """A segmentation network that normalises its input itself.

    In training mode the logits of an auxiliary head, where the architecture has one, come as a second channel.

    Args:
        info: architecture and normalisation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, info: SegmenterInfo) -> None:
        super().__init__()
        self.network = build_network(info)
        self.register_buffer("mean", torch.tensor(info.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(info.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1, H, W) logits for (N, 3, H, W) images in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's (N, C, h, w) maps, shallow to deep, for (N, 3, H, W) images in [0, 1]."""
        return self.network.encode((images - self.mean) / self.std)

    def on(self, device: torch.device) -> Self:
        """Move the network to ``device``, channels last, and return it."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def save_segmenter(folder: Path, segmenter: Segmenter, info: SegmenterInfo) -> None:
    """Publish weights and configuration in ``folder``, each file whole or absent, the configuration last."""
    save_checkpoint(folder, segmenter, info)


def load_segmenter(path: str | Path) -> tuple[Segmenter, SegmenterInfo]:
    """Return the network published in the folder ``path``, on the CPU and in evaluation mode, and what it is.

    Raises:
        CheckpointError: the folder is missing or damaged, or holds another kind of checkpoint.
    """
    folder = Path(path)
    info = read_info(folder, SegmenterInfo, trainer="segmentation")
    weights = read_weights(folder / WEIGHTS_FILE)
    with torch.random.fork_rng(devices=[]):
        segmenter = Segmenter(info)
    load_exactly(segmenter, weights, where=str(folder / WEIGHTS_FILE))
    return segmenter.eval(), info


def load_encoder(segmenter: Segmenter, file: Path) -> None:
    """Put pretrained weights, named as the encoder names them, into ``segmenter``; a classifier's head is left out.

    Raises:
        CheckpointError: the file cannot be read or belongs to another encoder.
    """
    heads = ("fc.", "classifier.", "head.", "last_linear.")
    weights = {name: value for name, value in read_weights(file).items() if not name.startswith(heads)}
    encoder = segmenter.network.encoder_module()
    load_pretrained(encoder, weights, where=str(file))
