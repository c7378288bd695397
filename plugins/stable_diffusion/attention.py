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
from typing import Any, Self

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from torch import Tensor, nn
from torch.nn import functional

from .attention_layers import AttentionLayer, Kind, chosen_layers


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
            _RecordingProcessor(self._records, layer.name, number, stop=stop and number == len(layers) - 1)
            for number, layer in enumerate(layers)
        ]
        self._replaced: list[Any] = []

    def __enter__(self) -> Self:
        """Install the recording.

        Raises:
            ValueError: a layer has another processor than diffusers' ``AttnProcessor2_0``.
            RuntimeError: this very recording is under way already.
        """
        if self._replaced:
            raise RuntimeError("this recording is under way already; make another one to nest them")
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
        self._replaced = []
        return isinstance(error, _LastLayerReached) and error.records is self._records

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
    again, and another one inside it takes over the layers that it shares with it until it ends. Recorded tensors keep
    their history for gradients, also under LoRA, ``torch.compile`` (the recorded layers run outside the compiled graph)
    and gradient checkpointing, whose recomputation is not recorded.

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
    return AttentionRecorder(chosen_layers(unet, self_attention, cross_attention), stop=stop)


class _LastLayerReached(Exception):
    """Leaves the U-Net once all that is wanted is in ``records``."""

    def __init__(self, records: dict[str, tuple[Tensor, Tensor]]) -> None:
        super().__init__("the last layer of a recording was reached outside of its block")
        self.records = records


class _RecordingProcessor:
    """What diffusers' AttnProcessor2_0 does in a transformer block, and a note of query and key."""

    def __init__(self, records: dict[str, tuple[Tensor, Tensor]], name: str, number: int, *, stop: bool) -> None:
        self._records, self._name, self._number, self._stop = records, name, number, stop

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
            self._note(query, key)
            if self._stop:
                raise _LastLayerReached(self._records)
        value = _split(attn.to_v(source), attn.heads)
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out = mixed.transpose(1, 2).flatten(2).to(query.dtype)
        for layer in attn.to_out:
            out = layer(out)
        return out

    def _note(self, query: Tensor, key: Tensor) -> None:
        # A recording inside this one may take some layers over for a pass: then there is no record, never a mixed one.
        if self._number == 0 or len(self._records) != self._number:
            self._records.clear()
        if len(self._records) == self._number:
            self._records[self._name] = (query, key)


def _split(tokens: Tensor, heads: int) -> Tensor:
    """(B, N, heads * d) -> (B, heads, N, d), a view."""
    return tokens.unflatten(2, (heads, -1)).transpose(1, 2)


def _check_plain(layer: AttentionLayer) -> None:
    attn = layer.module
    if type(attn.processor) not in (AttnProcessor2_0, _RecordingProcessor):
        raise ValueError(
            f"{layer.name} has the attention processor {type(attn.processor).__name__}; only AttnProcessor2_0, "
            "diffusers' default, can be recorded"
        )
    extras = ("spatial_norm", "group_norm", "norm_cross", "norm_q", "norm_k")
    if any(getattr(attn, extra, None) for extra in extras) or attn.residual_connection or attn.fused_projections:
        raise ValueError(f"{layer.name} does more than attend; only plain layers can be recorded")
