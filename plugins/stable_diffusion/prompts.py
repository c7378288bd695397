"""Prompts as the text encoder's states, with the number of tokens of each and one warning about what did not fit."""

from __future__ import annotations

import warnings
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from .base import StableDiffusionBase
from .tokens import count_tokens

SHOWN = 5


class PromptTruncationWarning(UserWarning):
    """Some prompts have more tokens than the text encoder has places."""


@dataclass(frozen=True)
class EncodedPrompts:
    """N prompts as a U-Net attends to them.

    Attributes:
        states: (N, 77, d) fp32, the encoder's last hidden states.
        tokens: (N, 77) int64 on the CPU: start token, prompt, end token, padding.
        counts: tokens of each prompt before truncation, start and end token included.
    """

    states: Tensor
    tokens: Tensor
    counts: tuple[int, ...]

    @property
    def ends(self) -> Tensor:
        """(N,) int64 on the CPU, place of each prompt's end token."""
        return torch.tensor(self.counts, dtype=torch.int64).clamp(max=self.tokens.shape[1]) - 1


class PromptEncoder:
    """Encodes prompts of one base, and warns the first time that one is truncated, not again."""

    def __init__(self, base: StableDiffusionBase) -> None:
        """Take tokenizer and text encoder of ``base``; tokens that were added to both count as one each."""
        self._base = base
        self._warned = False

    def __call__(self, prompts: Sequence[str], *, cases: Sequence[str] | None = None) -> EncodedPrompts:
        """Encode N prompts in one pass; an empty prompt is start and end token. Gradients follow torch's mode.

        Args:
            cases: name of each case for the warning, its number unless given.

        Warns:
            PromptTruncationWarning: prompts have more than 77 tokens; what lies beyond is not seen by the network.
        """
        encoder, tokenizer = self._base.text_encoder, self._base.tokenizer
        places = encoder.config.max_position_embeddings
        counts = count_tokens(tokenizer, prompts)
        self._warn(counts, places, cases)
        if not prompts:
            none = torch.empty(0, places, encoder.config.hidden_size, device=encoder.device)
            return EncodedPrompts(none, torch.empty(0, places, dtype=torch.int64), ())
        rows = tokenizer(list(prompts), padding="max_length", max_length=places, truncation=True, return_tensors="pt")
        tokens = rows["input_ids"]
        states = encoder(tokens.to(encoder.device)).last_hidden_state.float()
        return EncodedPrompts(states, tokens, tuple(counts))

    def _warn(self, counts: Sequence[int], places: int, cases: Sequence[str] | None) -> None:
        names = [f"prompt {number}" for number in range(len(counts))] if cases is None else cases
        longer = [f"{name} has {count}" for name, count in zip(names, counts, strict=True) if count > places]
        if not longer or self._warned:
            return
        self._warned = True
        listed = ", ".join(longer[:SHOWN]) + (f" and {len(longer) - SHOWN} more" if len(longer) > SHOWN else "")
        warnings.warn(
            f"{len(longer)} of {len(counts)} prompts exceed the text encoder's {places} tokens, start and end "
            f"included, and are cut: {listed}; this is said once, later prompts may be cut too",
            PromptTruncationWarning,
            stacklevel=3,
        )


def encode_prompts(base: StableDiffusionBase, prompts: Sequence[str]) -> EncodedPrompts:
    """Encode prompts once, see :class:`PromptEncoder`, which warns only once in a run of many batches."""
    return PromptEncoder(base)(prompts)
