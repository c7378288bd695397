"""DiDGen's placeholder tokens: two added words whose attention maps are tied to the lesion and the skin."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

from ...core.errors import CheckpointError, DataError
from ..stable_diffusion.base import StableDiffusionBase
from ..stable_diffusion.prompts import EncodedPrompts

PLACEHOLDERS = {"<lesion>": "lesion", "<skin>": "skin"}
"""Each placeholder and the word whose embedding it starts, and stays, as (paper, section 2.3)."""
PREFIX = "An image of <lesion> on <skin>."


def add_placeholders(base: StableDiffusionBase) -> None:
    """Add the placeholders to the base's tokenizer and text encoder, unless they are there.

    A word that CLIP's vocabulary splits gives the mean of its parts' embeddings (ours).
    """
    missing = [token for token in PLACEHOLDERS if token not in base.tokenizer.get_vocab()]
    if not missing:
        return
    table = _embeddings(base)
    parts = base.tokenizer([PLACEHOLDERS[token] for token in missing], add_special_tokens=False)["input_ids"]
    rows = torch.stack([table[numbers].mean(0) for numbers in parts])
    base.tokenizer.add_tokens(missing, special_tokens=True)
    base.text_encoder.resize_token_embeddings(len(base.tokenizer), mean_resizing=False)
    numbers = base.tokenizer.convert_tokens_to_ids(missing)
    _embeddings(base)[numbers] = rows


def _embeddings(base: StableDiffusionBase) -> Tensor:
    """Return the text encoder's table (tokens, d), cut off from the graph; what is written to it stays."""
    table: Any = base.text_encoder.get_input_embeddings()
    return table.weight.detach()


def check_placeholders(base: StableDiffusionBase, *, where: str) -> None:
    """Raise CheckpointError where the base was not fine-tuned with the placeholders."""
    vocabulary = base.tokenizer.get_vocab()
    unknown = [token for token in PLACEHOLDERS if token not in vocabulary]
    if unknown:
        raise CheckpointError(
            f"{where}: {base.folder} does not know the token {unknown[0]}; train it with trainer didgen first"
        )


def placeholder_places(
    base: StableDiffusionBase, encoded: EncodedPrompts, prompts: Sequence[str], *, where: str
) -> Tensor:
    """Return the places (N, 2) of the lesion and the skin token among the tokens of each prompt; the first of several.

    Raises:
        DataError: a prompt lacks one of them, perhaps since it was cut before it.
    """
    numbers = torch.tensor(base.tokenizer.convert_tokens_to_ids(list(PLACEHOLDERS)))
    found = encoded.tokens[:, None, :] == numbers[:, None]
    for prompt, present in zip(prompts, found.any(-1), strict=True):
        if not bool(present.all()):
            absent = list(PLACEHOLDERS)[int(present.int().argmin())]
            raise DataError(
                f"{where}: prompt {prompt!r} lacks {absent} among its first {encoded.tokens.shape[1]} tokens; begin "
                f'prompts with "{PREFIX}"'
            )
    return found.int().argmax(-1)
