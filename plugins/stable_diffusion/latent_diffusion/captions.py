"""Captions of the training images, made once, kept as JSONL, and turned into tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....core.context import Context
from ....core.dataset import Dataset
from ....core.errors import DataError
from ..captioning import Captioner
from ..kept import kept_by_pose
from ..tokens import CONTEXT_LENGTH, count_tokens
from .images import in_poses

if TYPE_CHECKING:
    from transformers import CLIPTokenizer

    from ....core.batch import Batch
    from .plugin import LatentDiffusionConfig


def captions_of(
    dataset: Dataset, config: LatentDiffusionConfig, poses: int, context: Context, output: Path
) -> list[list[str]]:
    """Return each image's caption in each of its first ``poses`` mirrored poses; ``captions.jsonl`` keeps them.

    Raises:
        DataError: an image gets no caption.
        StoreError: the file is there already and does not fit the images.
    """
    return kept_by_pose(output, dataset, lambda: captions_in_poses(dataset, config, poses, context), poses=poses)


def captions_in_poses(dataset: Dataset, config: LatentDiffusionConfig, poses: int, context: Context) -> list[list[str]]:
    """Return each image's caption in each of its first ``poses`` mirrored poses, by pose and row.

    Raises:
        DataError: an image gets none.
    """
    captioner, total = Captioner(config.captioner, context), poses * len(dataset)

    def captions_in(pose: int) -> list[str]:
        return captioner.captions(
            dataset,
            prepare=lambda batch: _mirrored(batch, pose),
            progress=lambda done: context.progress(pose * len(dataset) + done, total, {}),
        )

    return [captions_in(pose) for pose in range(poses)]


def _mirrored(batch: Batch, pose: int) -> Batch:
    assert batch.images is not None
    poses = torch.full((len(batch),), pose)
    masks = None if batch.masks is None else in_poses(batch.masks, poses)
    return batch.with_columns(images=in_poses(batch.images, poses), masks=masks)


@dataclass(frozen=True)
class Prompts:
    """Tokens of all captions, and how often they are dropped.

    Attributes:
        tokens: (poses, images, 77) int64.
        short, empty: (77,) tokens of the short prompt and of the empty one.
    """

    tokens: Tensor
    short: Tensor
    empty: Tensor
    config: LatentDiffusionConfig

    def take(self, poses: Tensor, rows: Sequence[int]) -> Tensor:
        """Return (N, 77) tokens; by torch's random state, shares of them are those of the short or the empty prompt."""
        tokens = self.tokens[poses, torch.tensor(list(rows))]
        drawn = torch.rand(len(tokens), 1)
        empty, short = self.config.empty_share, self.config.empty_share + self.config.short_share
        return torch.where(drawn < empty, self.empty, torch.where(drawn < short, self.short, tokens))


def tokenized(captions: list[list[str]], tokenizer: CLIPTokenizer, config: LatentDiffusionConfig) -> Prompts:
    """Return the tokens of ``captions`` by pose and row.

    Raises:
        DataError: a caption takes more than 77 tokens.
    """
    every = [caption for pose in captions for caption in pose]
    for caption, count in zip(every, count_tokens(tokenizer, every), strict=True):
        if count > CONTEXT_LENGTH:
            raise DataError(
                f"caption of {count} tokens where the text encoder takes {CONTEXT_LENGTH}: {caption!r}; shorten it"
            )
    tokens = token_rows(tokenizer, every).reshape(len(captions), -1, CONTEXT_LENGTH)
    short, empty = token_rows(tokenizer, [config.short_prompt, ""])
    return Prompts(tokens, short, empty, config)


def token_rows(tokenizer: CLIPTokenizer, prompts: Sequence[str]) -> Tensor:
    """Return (N, 77) int64 tokens, padded, of prompts that fit."""
    encoded = tokenizer(list(prompts), padding="max_length", max_length=CONTEXT_LENGTH, truncation=True)
    return torch.tensor(encoded["input_ids"])
