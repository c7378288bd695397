"""What identifies a base to the adapters that were trained on it, wherever its files lie."""

from __future__ import annotations

import hashlib

import torch
from torch import nn

from .base import StableDiffusionBase


def base_fingerprint(base: StableDiffusionBase) -> str:
    """Return the SHA-256 of names and values of all weights, in fp32, of U-Net, VAE and text encoder.

    Take it of a base as it was loaded: adapters, widened convolutions and rounding change it.
    """
    digest = hashlib.sha256()
    parts: dict[str, nn.Module] = {"unet": base.unet, "vae": base.vae, "text_encoder": base.text_encoder}
    for part, network in parts.items():
        for name, tensor in sorted(network.state_dict().items()):
            values = tensor.detach().to("cpu", torch.float32).contiguous()
            digest.update(f"{part}.{name} {tuple(values.shape)}\n".encode())
            digest.update(values.numpy().data)
    return digest.hexdigest()
