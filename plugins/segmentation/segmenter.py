"""A trained segmentation network with all it needs to be used again, and the folder it is published in."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Self

import torch
from torch import Tensor, nn

from ...core.errors import CheckpointError, ConfigError, PluginError
from ...core.registry import Registry
from ..supervised.checkpoint import INFO_FILE, WEIGHTS_FILE, load_exactly, load_pretrained, read_info, read_weights
from .config import SegmenterInfo


class Segmenter(nn.Module):
    """A segmentation network that normalises its input itself.

    In training mode it returns what the architecture does, see :class:`lesionforge.Architecture`.

    Args:
        info: architecture and normalisation.
        registry: where the architecture is looked up, by default everything installed.

    Raises:
        ConfigError: the architecture's values or the size of the images do not fit it.
        PluginError: the architecture is not there or broken.
    """

    network: Any
    mean: Tensor
    std: Tensor

    def __init__(self, info: SegmenterInfo, registry: Registry | None = None) -> None:
        super().__init__()
        self.network = info.network(registry)[1].build()
        self.register_buffer("mean", torch.tensor(info.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(info.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1, H, W) logits for (N, 3, H, W) images in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    @property
    def has_encoder(self) -> bool:
        """True where the architecture hands out its encoder's maps."""
        return hasattr(self.network, "encode")

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's (N, C, h, w) maps, shallow to deep, for (N, 3, H, W) images in [0, 1]."""
        return self.network.encode((images - self.mean) / self.std)

    def on(self, device: torch.device) -> Self:
        """Move the network to ``device``, channels last, and return it."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def load_segmenter(path: str | Path, registry: Registry | None = None) -> tuple[Segmenter, SegmenterInfo]:
    """Return the network published in the folder ``path``, on the CPU and in evaluation mode, and what it is.

    Raises:
        CheckpointError: the folder is missing or damaged, holds another kind of checkpoint, or a network whose
            distribution is not installed.
    """
    folder = Path(path)
    info = read_info(folder, SegmenterInfo, trainer="segmentation")
    weights = read_weights(folder / WEIGHTS_FILE)
    try:
        with torch.random.fork_rng(devices=[]):
            segmenter = Segmenter(info, registry)
    except PluginError as error:
        raise CheckpointError(f"{folder} needs {info.distribution} installed: {error}") from error
    except ConfigError as error:
        raise CheckpointError(f"{folder / INFO_FILE} does not describe a segmentation checkpoint: {error}") from error
    load_exactly(segmenter, weights, where=str(folder / WEIGHTS_FILE))
    return segmenter.eval(), info


def load_encoder(segmenter: Segmenter, file: Path) -> None:
    """Put pretrained weights, named as the encoder names them, into ``segmenter``; a classifier's head is left out.

    Raises:
        CheckpointError: the file cannot be read or belongs to another encoder, or the network has none.
    """
    if not hasattr(segmenter.network, "encoder_module"):
        raise CheckpointError(f"weights file {file} cannot be used: this architecture has no encoder that it could fit")
    heads = ("fc.", "classifier.", "head.", "last_linear.")
    weights = {name: value for name, value in read_weights(file).items() if not name.startswith(heads)}
    encoder = segmenter.network.encoder_module()
    load_pretrained(encoder, weights, where=str(file))
