"""The attention layers of a U-Net: where they are, at which resolution, and which of them a choice means."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

from diffusers.models.attention_processor import Attention
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import nn

Kind = Literal["self", "cross"]


@dataclass(frozen=True)
class AttentionLayer:
    """One attention layer of a U-Net.

    Attributes:
        name: its path in the U-Net, ``down_blocks.1.attentions.0.transformer_blocks.0.attn1``.
        kind: ``self``, pixels to pixels, or ``cross``, pixels to text.
        factor: by how much its resolution is smaller than that of the latents, along an edge.
    """

    name: str
    kind: Kind
    factor: int
    module: Attention


def attention_layers(unet: UNet2DConditionModel) -> list[AttentionLayer]:
    """Return all attention layers in the order in which the U-Net runs them."""
    layers: list[AttentionLayer] = []

    def collect(path: str, block: nn.Module, factor: int) -> None:
        for name, module in block.named_modules():
            if isinstance(module, Attention):
                kind: Kind = "cross" if module.is_cross_attention else "self"
                layers.append(AttentionLayer(f"{path}.{name}", kind, factor, module))

    factor = 1
    for number, block in enumerate(unet.down_blocks):
        collect(f"down_blocks.{number}", block, factor)
        factor *= 2 if block.downsamplers is not None else 1
    if unet.mid_block is not None:
        collect("mid_block", unet.mid_block, factor)
    for number, block in enumerate(unet.up_blocks):
        collect(f"up_blocks.{number}", block, factor)
        factor //= 2 if block.upsamplers is not None else 1
    return layers


def chosen_layers(
    unet: nn.Module, self_attention: Sequence[int | str], cross_attention: Sequence[int | str]
) -> list[AttentionLayer]:
    """Return the layers that were chosen, see ``record_attention``, in the order in which the U-Net runs them.

    Raises:
        TypeError: ``unet`` is no ``UNet2DConditionModel``, nor one in a wrapper.
        ValueError: nothing is chosen, or what is chosen does not exist.
    """
    layers = attention_layers(_bare(unet))
    chosen = {*_named(layers, "self", self_attention), *_named(layers, "cross", cross_attention)}
    if not chosen:
        raise ValueError("choose layers with self_attention or cross_attention")
    return [layer for layer in layers if layer.name in chosen]


def _named(layers: Sequence[AttentionLayer], kind: Kind, wanted: Sequence[int | str]) -> set[str]:
    """Return the names of the layers of one kind that ``wanted`` stands for; raises ValueError where it is none."""
    names: set[str] = set()
    candidates = [layer for layer in layers if layer.kind == kind]
    for choice in wanted:
        found = {layer.name for layer in candidates if choice == layer.factor or _begins(layer.name, choice)}
        if not found:
            factors = sorted({layer.factor for layer in candidates})
            raise ValueError(f"there is no {kind}-attention at {choice!r}; there is some at factors {factors}")
        names |= found
    return names


def _begins(name: str, choice: int | str) -> bool:
    return isinstance(choice, str) and f"{name}.".startswith(f"{choice}.")


def _bare(unet: nn.Module) -> UNet2DConditionModel:
    """Return the network inside torch.compile's, peft's or a data-parallel wrapper."""
    inner: Any = unet
    while not isinstance(inner, UNet2DConditionModel):
        wrapped = [getattr(inner, name, None) for name in ("_orig_mod", "module", "base_model", "model")]
        inner = next((network for network in wrapped if isinstance(network, nn.Module)), None)
        if inner is None:
            raise TypeError(f"attention is recorded of diffusers' UNet2DConditionModel, not of {type(unet).__name__}")
    return inner
