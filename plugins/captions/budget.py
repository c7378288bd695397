"""Prompts that fit CLIP's context: whole clauses are dropped from the end until they do."""

from __future__ import annotations

import re
import threading
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...core.errors import ConfigError, PluginError
from ..data.icd11 import Terms, class_words, entity_of
from ..stable_diffusion.tokens import clip_tokenizer, count_tokens

if TYPE_CHECKING:
    from ...core.batch import Batch

PLACEHOLDER = re.compile(r"<[^<>\s]+>")
"""A single added token, such as ``<lesion>``."""
PUNCTUATION = " ,;:.!?\N{HORIZONTAL ELLIPSIS}"
CLAUSE_END = re.compile(r"(?<=[,;:.!?])\s+")


class PromptBudget:
    """Puts a prefix before sentences and shortens them to what CLIP reads.

    Args:
        prefix: text before every sentence, perhaps with ``{label}``; what stands in angle brackets is one token.
        limit: tokens of a whole prompt, start and end token included.
        terms: how classes are worded. Models that are asked for ICD-11's terms are told to begin with the prefix; it
            stands there once, whether they do or not.
    """

    def __init__(self, prefix: str, limit: int, terms: Terms = "plain") -> None:
        self._prefix, self.limit = prefix, limit
        self.terms: Terms = terms
        self._lock = threading.Lock()
        self._tokenizer = clip_tokenizer()
        self._tokenizer.add_tokens(list(dict.fromkeys(PLACEHOLDER.findall(prefix))))

    def prefixes(self, batch: Batch) -> list[str]:
        """Return each case's prefix, with its label in it where one is asked for.

        Raises:
            PluginError: the prefix asks for a label and a case has none.
        """
        if "{label}" not in self._prefix:
            return [self._prefix] * len(batch)
        labels = batch.labels or (None,) * len(batch)
        missing = [case for case, label in zip(batch.ids, labels, strict=True) if label is None]
        if missing:
            raise PluginError(f"the prefix {self._prefix!r} needs a label, and case {missing[0]} has none")
        return [self._prefix.replace("{label}", class_words(str(label), self.terms)) for label in labels]

    def bare(self, prefix: str, sentence: str) -> str:
        """Return the sentence on one line, without the prefix where a model began with it as it was told."""
        sentence = " ".join(sentence.split())
        beginning = prefix.strip().rstrip(PUNCTUATION)
        rest = sentence[len(beginning) :]
        begins = sentence.lower().startswith(beginning.lower()) and not rest[:1].isalnum()
        return rest.lstrip(PUNCTUATION) if self.terms == "icd-11" and beginning and begins else sentence

    def fits(self, prefix: str, sentence: str) -> bool:
        """True where both together keep to the limit."""
        return self.tokens([_joined(prefix, sentence)])[0] <= self.limit

    def tokens(self, prompts: Sequence[str]) -> list[int]:
        """Return how many tokens each prompt takes, start and end token included."""
        with self._lock:  # several threads ask
            return count_tokens(self._tokenizer, prompts)

    def shortened(self, prefix: str, sentence: str) -> str:
        """Return the sentence, cut after a clause, or if need be after a word, until it fits beside ``prefix``.

        Raises:
            ConfigError: the prefix alone is too long.
        """
        sentence = self.bare(prefix, sentence)
        if self.fits(prefix, sentence):
            return sentence
        for whole in (CLAUSE_END.split(sentence), sentence.split()):
            parts = whole[: self.limit]  # each takes a token at least
            shorter = [_closed(parts[:count]) for count in range(min(len(parts), len(whole) - 1), 0, -1)]
            tokens = self.tokens([_joined(prefix, text) for text in shorter])
            fitting = (text for text, count in zip(shorter, tokens, strict=True) if count <= self.limit)
            if found := next(fitting, None):
                return found
        if not self.fits(prefix, ""):
            raise ConfigError(f"the prefix {prefix!r} alone takes more than {self.limit} CLIP tokens; shorten it")
        return ""

    def sentences(self, batch: Batch, sentences: Sequence[str]) -> list[str]:
        """Return each case's sentence, shortened where need be."""
        return [self.shortened(prefix, text) for prefix, text in zip(self.prefixes(batch), sentences, strict=True)]

    def fill(self, batch: Batch, sentences: Sequence[str]) -> Batch:
        """Return ``batch`` with one prompt a case.

        Provenance has ``prompt_shortened`` where a sentence was cut, and ``icd_11``, the class's code, where its terms
        are asked for and it has the class.
        """
        prefixes, short = self.prefixes(batch), self.sentences(batch, sentences)
        prompts = [_joined(prefix, text) for prefix, text in zip(prefixes, short, strict=True)]
        whole = [self.bare(prefix, text) for prefix, text in zip(prefixes, sentences, strict=True)]
        notes = [
            {**({"prompt_shortened": True} if len(text) < len(full) else {}), **self._code(label)}
            for text, full, label in zip(short, whole, batch.labels or (None,) * len(batch), strict=True)
        ]
        return batch.with_columns(prompts=prompts, provenance=notes)

    def _code(self, label: str | None) -> dict[str, str]:
        entity = entity_of(label) if self.terms == "icd-11" else None
        return {} if entity is None else {"icd_11": entity.code}


def _joined(prefix: str, sentence: str) -> str:
    return f"{prefix} {sentence}".strip()


def _closed(parts: Sequence[str]) -> str:
    return " ".join(parts).rstrip(" ,;:.!?") + "."
