"""CLIP's tokens: the tokenizer of Stable Diffusion's text encoders from the vocabulary in this package, and counts."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

CONTEXT_LENGTH = 77
"""Places of CLIP's text encoder, start and end token included."""
START, END = "<|startoftext|>", "<|endoftext|>"
MERGES = Path(__file__).with_name("clip_vocabulary") / "merges.txt"


def clip_tokenizer() -> CLIPTokenizer:
    """Return a new tokenizer with CLIP's vocabulary of 49,408 tokens, padding with the end token; needs no network.

    Source: Radford et al. 2021, "Learning transferable visual models from natural language supervision", section 2.4.
    """
    from transformers import CLIPTokenizer

    merges = [(left, right) for left, right in map(str.split, MERGES.read_text(encoding="utf-8").splitlines())]
    letters = _byte_letters()
    words = [*letters, *(f"{letter}</w>" for letter in letters), *(left + right for left, right in merges), START, END]
    vocabulary = {word: number for number, word in enumerate(words)}
    return CLIPTokenizer(vocab=vocabulary, merges=merges, model_max_length=CONTEXT_LENGTH)  # type: ignore[arg-type]


def count_tokens(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> list[int]:
    """Return how many tokens each prompt takes, start and end token included, without truncation."""
    return [len(row) for row in tokenizer(list(prompts), verbose=False)["input_ids"]] if prompts else []


def _byte_letters() -> list[str]:
    """Return one visible character for each of the 256 bytes, in the vocabulary's order."""
    visible = [*range(ord("!"), ord("~") + 1), *range(ord("¡"), ord("¬") + 1), *range(ord("®"), ord("ÿ") + 1)]
    return [*map(chr, visible), *(chr(256 + place) for place in range(256 - len(visible)))]
