"""What every architecture offers: logits of a mask, and the encoder's feature maps."""

from __future__ import annotations

from abc import abstractmethod

from torch import Tensor, nn


class SegmentationNetwork(nn.Module):
    """A network from normalised images to logits.

    In training mode an architecture with an auxiliary head returns that head's logits as a second channel.
    """

    @abstractmethod
    def encoder_module(self) -> nn.Module:
        """Return the part that pretrained encoder weights go into."""

    @abstractmethod
    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1, H, W) logits for (N, 3, H, W) normalised images, (N, 2, H, W) with an auxiliary head."""

    @abstractmethod
    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's (N, C, h, w) maps of normalised images, shallow to deep."""
