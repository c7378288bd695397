"""Prompts that fit CLIP's context: whole clauses are dropped from the end until they do."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ...core.errors import ConfigError, PluginError
from ..stable_diffusion.tokens import clip_tokenizer, count_tokens

if TYPE_CHECKING:
    from ...core.batch import Batch

PLACEHOLDER = re.compile(r"<[^<>\s]+>")
"""A single added token, such as ``<lesion>``."""
CLAUSE_END = re.compile(r"(?<=[,;:.!?])\s+")


@dataclass(frozen=True)
class Prompt:
    """A prompt within the budget, and whether something was left out of it."""

    text: str
    shortened: bool


class PromptBudget:
    """Puts a prefix before sentences and shortens them to what CLIP reads.

    Args:
        prefix: text before every sentence, perhaps with ``{label}``; what stands in angle brackets is one token.
        limit: tokens of a whole prompt, start and end token included.
    """

    def __init__(self, prefix: str, limit: int) -> None:
        self._prefix, self.limit = prefix, limit
        self._tokenizer = clip_tokenizer()
        self._tokenizer.add_tokens(list(dict.fromkeys(PLACEHOLDER.findall(prefix))))

    def prefix_for(self, label: str | None, *, case: str) -> str:
        """Return the prefix with the case's label in it.

        Raises:
            PluginError: the prefix asks for a label and the case has none.
        """
        if "{label}" not in self._prefix:
            return self._prefix
        if label is None:
            raise PluginError(f"the prefix {self._prefix!r} needs a label, and case {case} has none")
        return self._prefix.replace("{label}", label.replace("_", " "))

    def fits(self, prefix: str, sentence: str) -> bool:
        """True where both together keep to the limit."""
        return self.tokens([_joined(prefix, sentence)])[0] <= self.limit

    def tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return how many tokens each prompt takes, start and end token included."""
        return count_tokens(self._tokenizer, prompts)

    def prompt(self, prefix: str, sentence: str) -> Prompt:
        """Return prefix and sentence as one prompt, the sentence cut after a clause, or if need be after a word.

        Raises:
            ConfigError: the prefix alone is too long.
        """
        sentence = " ".join(sentence.split())
        whole = _joined(prefix, sentence)
        if self.tokens([whole])[0] <= self.limit:
            return Prompt(whole, shortened=False)
        for parts in (CLAUSE_END.split(sentence), sentence.split()):
            shorter = [_joined(prefix, _closed(parts[:count])) for count in range(len(parts) - 1, 0, -1)]
            fitting = (text for text, tokens in zip(shorter, self.tokens(shorter), strict=True) if tokens <= self.limit)
            if found := next(fitting, None):
                return Prompt(found, shortened=True)
        if self.tokens([prefix])[0] > self.limit:
            raise ConfigError(f"the prefix {prefix!r} alone takes more than {self.limit} CLIP tokens; shorten it")
        return Prompt(prefix, shortened=True)


    def fill(self, batch: Batch, sentences: Sequence[str]) -> Batch:
        """Return ``batch`` with one prompt a case; provenance has ``prompt_shortened`` where a sentence was cut."""
        labels = batch.labels or (None,) * len(batch)
        prefixes = [self.prefix_for(label, case=case) for label, case in zip(labels, batch.ids, strict=True)]
        prompts = [self.prompt(prefix, text) for prefix, text in zip(prefixes, sentences, strict=True)]
        notes = [{"prompt_shortened": True} if prompt.shortened else {} for prompt in prompts]
        return batch.with_columns(prompts=[prompt.text for prompt in prompts], provenance=notes)


def _joined(prefix: str, sentence: str) -> str:
    return f"{prefix} {sentence}".strip()


def _closed(parts: Sequence[str]) -> str:
    return " ".join(parts).rstrip(" ,;:.!?") + "."
