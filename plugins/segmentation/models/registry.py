"""From a configuration to a network."""

from __future__ import annotations

from ..config import DILATED_UNET, NetworkConfig
from .dilated_unet import DilatedUNet
from .library import SMP_ARCHITECTURES, SmpNetwork, TorchvisionNetwork
from .network import SegmentationNetwork


def build_network(config: NetworkConfig) -> SegmentationNetwork:
    """Return the network that ``config`` describes, with random weights from torch's current random state.

    Raises:
        ConfigError: the encoder is unknown or does not go with the architecture.
    """
    values = config.network_values()
    if config.architecture == DILATED_UNET:
        return DilatedUNet(values["width"], values["depth"], values["dilations"])
    if config.architecture in SMP_ARCHITECTURES:
        return SmpNetwork(config.architecture, values["encoder"])
    return TorchvisionNetwork(config.architecture)


def parameter_count(network: SegmentationNetwork) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)
