"""Queries and keys of chosen attention layers of a U-Net, taken while it runs, without changing what it computes.

    with record_attention(unet, self_attention=[2], cross_attention=[4]) as recording:
        unet(latents, timestep, states)
    maps = recording.cross_attention(4)
    token_attention(maps.query, maps.key, [5, 8])

A probability map of one layer has heads x N x N numbers, its query and key have heads x N x d each. Only these are
kept; the operators of `lesionforge.kernels` make of them what a loss or a mask needs.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Literal, Self

import torch
from diffusers.models.attention_processor import Attention, AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn
from torch.nn import functional

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


@dataclass(frozen=True)
class RecordedAttention:
    """Queries and keys of layers of one kind and resolution, with their gradients' history.

    Attributes:
        queries: (B, heads, N, d) of each layer, in the order in which the U-Net runs them.
        keys: (B, heads, S, d) of each layer; S = N for self-attention, the number of tokens for cross-attention.
    """

    queries: tuple[Tensor, ...]
    keys: tuple[Tensor, ...]

    @property
    def query(self) -> Tensor:
        """(B, L, N, d), L = layers x heads, as the operators of ``lesionforge.kernels`` take it."""
        return torch.cat(self.queries, dim=1)

    @property
    def key(self) -> Tensor:
        """(B, L, S, d), L = layers x heads."""
        return torch.cat(self.keys, dim=1)

    def branch(self, number: int, *, of: int = 2) -> RecordedAttention:
        """Return part ``number`` of a batch that holds ``of`` equal parts one after another, without a copy.

        Raises:
            ValueError: the batch cannot be shared out so, or has no such part.
        """
        if not 0 <= number < of or len(self.queries[0]) % of:
            raise ValueError(f"a batch of {len(self.queries[0])} has no part {number} of {of}")
        parts = (tuple(tensor.chunk(of)[number] for tensor in each) for each in (self.queries, self.keys))
        return RecordedAttention(*parts)

    @property
    def unconditional(self) -> RecordedAttention:
        """The first half of a classifier-free guidance batch, the order of diffusers and of our sampler."""
        return self.branch(0)

    @property
    def conditional(self) -> RecordedAttention:
        """The second half of a classifier-free guidance batch."""
        return self.branch(1)


class AttentionRecorder:
    """Records chosen layers of a U-Net inside its ``with`` block; see :func:`record_attention`, which makes it.

    Attributes:
        layers: what is recorded, in the order in which the U-Net runs it.
    """

    def __init__(self, layers: Sequence[AttentionLayer], *, stop: bool) -> None:
        self.layers = tuple(layers)
        self._records: dict[str, tuple[Tensor, Tensor]] = {}
        # Made once, so that a compiled U-Net meets the same objects every time it is recorded.
        self._processors = [
            _RecordingProcessor(self._records, layer.name, first=number == 0, stop=stop and number == len(layers) - 1)
            for number, layer in enumerate(layers)
        ]
        self._replaced: list[Any] = []

    def __enter__(self) -> Self:
        """Install the recording.

        Raises:
            ValueError: a layer has another processor than diffusers' ``AttnProcessor2_0``.
        """
        for layer in self.layers:
            _check_plain(layer)
        self._replaced = [layer.module.processor for layer in self.layers]
        for layer, processor in zip(self.layers, self._processors, strict=True):
            layer.module.processor = processor  # type: ignore[assignment]
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> bool:
        """Put the processors back. What was recorded stays; a stop after the last layer ends the block quietly."""
        for layer, processor in zip(self.layers, self._replaced, strict=True):
            layer.module.processor = processor
        return isinstance(error, _LastLayerReached)

    def self_attention(self, factor: int | None = None) -> RecordedAttention:
        """Return what the U-Net's last pass left of the self-attention ``factor`` times below the latents' resolution.

        Args:
            factor: may be left out if only one was asked for.

        Raises:
            ValueError: such layers were not asked for.
            RuntimeError: the U-Net has not run inside the block.
        """
        return self._recorded("self", factor)

    def cross_attention(self, factor: int | None = None) -> RecordedAttention:
        """Return cross-attention, see :meth:`self_attention`."""
        return self._recorded("cross", factor)

    def clear(self) -> None:
        """Forget what was recorded, and with it the graph that it holds in memory."""
        self._records.clear()

    def _recorded(self, kind: Kind, factor: int | None) -> RecordedAttention:
        factors = sorted({layer.factor for layer in self.layers if layer.kind == kind})
        if factor is None and len(factors) == 1:
            (factor,) = factors
        if factor not in factors:
            raise ValueError(f"{kind}-attention is recorded at factors {factors}, not {factor}")
        names = [layer.name for layer in self.layers if (layer.kind, layer.factor) == (kind, factor)]
        if not set(names) <= self._records.keys():
            raise RuntimeError(f"{names[0]} was not recorded; run the U-Net inside the with block first")
        queries, keys = zip(*(self._records[name] for name in names), strict=True)
        return RecordedAttention(queries, keys)


def record_attention(
    unet: nn.Module,
    *,
    self_attention: Sequence[int | str] = (),
    cross_attention: Sequence[int | str] = (),
    stop: bool = False,
) -> AttentionRecorder:
    """Return a context manager that records the queries and keys of chosen layers whenever the U-Net runs inside it.

    The U-Net's output keeps its bits. Every pass replaces what the one before left. The block may be entered again and
    again. Recorded tensors keep their history for gradients, also under LoRA, ``torch.compile`` (the recorded layers
    run outside the compiled graph) and gradient checkpointing, whose recomputation is not recorded.

    Args:
        unet: diffusers' ``UNet2DConditionModel``, also inside ``torch.compile``, peft or a data-parallel wrapper.
        self_attention: which layers: a number k for all at 1/k of the latents' resolution (with latents of 64 x 64,
            2 means 32 x 32), a text for a layer's name or the beginning of names, ``up_blocks.2``.
        cross_attention: likewise.
        stop: leave the ``with`` block as soon as the last chosen layer has its query and key, so that nothing after it
            is computed; gradients of what was recorded are those of the full pass.

    Raises:
        TypeError: ``unet`` is of another class.
        ValueError: nothing is chosen, or what is chosen does not exist.
    """
    network = _bare(unet)
    layers = attention_layers(network)
    chosen = {*_named(layers, "self", self_attention), *_named(layers, "cross", cross_attention)}
    if not chosen:
        raise ValueError("choose layers with self_attention or cross_attention")
    return AttentionRecorder([layer for layer in layers if layer.name in chosen], stop=stop)


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


class _LastLayerReached(Exception):
    """Leaves the U-Net once all that is wanted has been recorded."""


class _RecordingProcessor:
    """What diffusers' AttnProcessor2_0 does in a transformer block, and a note of query and key."""

    def __init__(self, records: dict[str, tuple[Tensor, Tensor]], name: str, *, first: bool, stop: bool) -> None:
        self._records, self._name, self._first, self._stop = records, name, first, stop

    @torch.compiler.disable
    def __call__(
        self,
        attn: Any,
        hidden_states: Tensor,
        encoder_hidden_states: Tensor | None = None,
        attention_mask: Tensor | None = None,
        temb: Tensor | None = None,
    ) -> Tensor:
        """Map hidden states (B, N, C), attending to themselves or to the text (B, S, D), to (B, N, C)."""
        if attention_mask is not None:
            raise ValueError(f"{self._name} is given an attention mask, which recorded queries and keys would not show")
        source = hidden_states if encoder_hidden_states is None else encoder_hidden_states
        query, key = (_split(to(x), attn.heads) for to, x in ((attn.to_q, hidden_states), (attn.to_k, source)))
        # Gradient checkpointing computes layers again in the middle of a backward pass.
        if torch._C._current_graph_task_id() == -1:
            if self._first:
                self._records.clear()
            self._records[self._name] = (query, key)
            if self._stop:
                raise _LastLayerReached
        value = _split(attn.to_v(source), attn.heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out = mixed.transpose(1, 2).flatten(2).to(query.dtype)
        for layer in attn.to_out:
            out = layer(out)
        return out


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d), a view."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


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


def _check_plain(layer: AttentionLayer) -> None:
    attn = layer.module
    if type(attn.processor) is not AttnProcessor2_0:
        raise ValueError(
            f"{layer.name} has the attention processor {type(attn.processor).__name__}; only AttnProcessor2_0, "
            "diffusers' default, can be recorded"
        )
    extras = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k")
    if any(getattr(attn, extra, None) for extra in extras) or attn.residual_connection or attn.fused_projections:
        raise ValueError(f"{layer.name} does more than attend; only plain layers can be recorded")


def _bare(unet: nn.Module) -> UNet2DConditionModel:
    """Return the network inside torch.compile's, peft's or a data-parallel wrapper."""
    inner: Any = unet
    while not isinstance(inner, UNet2DConditionModel):
        wrapped = [getattr(inner, name, None) for name in ("_orig_mod", "module", "base_model", "model")]
        inner = next((network for network in wrapped if isinstance(network, nn.Module)), None)
        if inner is None:
            raise TypeError(f"attention is recorded of diffusers' UNet2DConditionModel, not of {type(unet).__name__}")
    return inner
