"""The ControlNet of one base: made from its encoder, saved beside the base's fingerprint, refused by any other base."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch import Tensor

from ...core.durable import new_folder, read_json, write_text
from ...core.errors import CheckpointError, first_line
from ..stable_diffusion.base import DAMAGE, StableDiffusionBase
from ..stable_diffusion.fingerprint import base_fingerprint

NETWORK = "controlnet"
FACTS = "promptcontrol.json"
EMBEDDING_CHANNELS = (16, 32, 96, 256)
"""Channels of the condition's own convolutions, each after the first halving its edge (Zhang et al. 2023)."""


def fresh_controlnet(base: StableDiffusionBase, seed: int) -> ControlNetModel:
    """Return a trainable copy of the base's encoder whose zero convolutions still let nothing through.

    Only the convolutions that take in the mask are random, by ``seed``.
    """
    halvings = base.downsampling.bit_length()
    channels = (*EMBEDDING_CHANNELS, *(EMBEDDING_CHANNELS[-1],) * halvings)[:halvings]
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        return ControlNetModel.from_unet(base.unet, conditioning_embedding_out_channels=channels)


def condition_images(masks: Tensor) -> Tensor:
    """Return masks (N, 1, H, W) as the grey images (N, 3, H, W) in [0, 1] that a ControlNet takes."""
    return masks.float().expand(-1, 3, -1, -1)


def save_controlnet(network: ControlNetModel, fingerprint: str, size: int, folder: Path) -> None:
    """Write controlnet/ as diffusers does, then promptcontrol.json, which says what base and size it is for."""
    with new_folder(folder / NETWORK) as draft:
        network.save_pretrained(draft)
    write_text(folder / FACTS, json.dumps({"base_sha256": fingerprint, "size": size}, indent=2) + "\n")


def load_controlnet(folder: Path, base: StableDiffusionBase) -> tuple[ControlNetModel, int]:
    """Return a trained network for the base, as it was loaded, in evaluation mode, and the size it was trained at.

    Raises:
        CheckpointError: there is none, it is damaged, or it was trained on another base.
    """
    if not (folder / FACTS).is_file():
        raise CheckpointError(
            f"no PromptControl checkpoint at {folder}: {FACTS} is missing; give the folder that trainer promptcontrol "
            "wrote"
        )
    try:
        facts = read_json(folder / FACTS)
        trained_on, size = str(facts["base_sha256"]), int(facts["size"])
        network = _network(folder / NETWORK)
    except DAMAGE as error:
        raise CheckpointError(f"PromptControl checkpoint {folder} cannot be used: {first_line(error)}") from error
    fingerprint = base_fingerprint(base)
    if fingerprint != trained_on:
        raise CheckpointError(
            f"PromptControl checkpoint {folder} was trained on another base (SHA-256 of its weights {trained_on[:12]}) "
            f"than {base.folder} ({fingerprint[:12]}); set base to the one that it was trained on"
        )
    return network.requires_grad_(False).eval(), size


def _network(folder: Path) -> ControlNetModel:
    loaded: Any = ControlNetModel.from_pretrained(
        folder, local_files_only=True, use_safetensors=True, output_loading_info=True, torch_dtype=torch.float32
    )
    network, report = loaded
    # diffusers would leave what is missing random.
    if missing := sorted(report["missing_keys"]):
        raise ValueError(f"its weights lack {len(missing)} tensors, {missing[0]} first")
    return network
