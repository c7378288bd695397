"""Sentences from a model behind an endpoint: descriptions of images, and new prompts after examples."""

from __future__ import annotations

import base64
import hashlib
import io
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from PIL import Image

from .answers import AnswerCache, question_key
from .chat import ChatEndpoint, Pace
from .instructions import describe, invent, rewrite
from .pixels import as_bytes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from ...core.batch import Batch
    from .budget import PromptBudget
    from .config import CaptionConfig

T = TypeVar("T")
WORDS_A_TOKEN = 0.6
"""Words to ask for per free token; English takes about 1.3 CLIP tokens a word, and models overshoot [ours]."""


class ChatCaptioner:
    """Asks an endpoint for sentences, several cases at once, and keeps every answer in a cache file.

    A description too long for the budget is given back once to be rewritten; what is still too long is cut later.
    """

    def __init__(self, config: CaptionConfig, budget: PromptBudget) -> None:
        assert config.url is not None and config.model is not None and config.cache is not None
        pace = Pace(config.requests_per_minute)
        self._endpoint = ChatEndpoint(
            config.url, config.model, config.key_variable, config.timeout_s, config.retries, pace
        )
        self._cache = AnswerCache(Path(config.cache))
        self._budget, self._concurrency = budget, config.concurrency

    def sentences(self, batch: Batch) -> list[str]:
        """Return one sentence for each image (N, 3, H, W) of the batch."""
        assert batch.images is not None
        pixels = as_bytes(batch.images)
        labels, prefixes = batch.labels or (None,) * len(batch), self._budget.prefixes(batch)

        def write(row: int) -> str:
            instruction = describe(labels[row], prefixes[row], self._budget.terms)
            return self._fitting(self._description(batch.ids[row], pixels[row], instruction), prefixes[row])

        return self._each(write, len(batch))

    def invented(self, batch: Batch, examples: Sequence[Sequence[str]]) -> list[str]:
        """Return one new sentence for each case, after its own ``examples``; nobody has seen an image of it."""
        labels, prefixes = batch.labels or (None,) * len(batch), self._budget.prefixes(batch)

        def write(row: int) -> str:
            instruction = invent(examples[row], labels[row], self._words(prefixes[row]), self._budget.terms)
            key = question_key(self._endpoint.model, instruction, str(batch.seeds[row]))
            about = {"id": batch.ids[row], "model": self._endpoint.model}
            return self._fitting(self._cache.get(key, lambda: self._endpoint.ask(instruction), about), prefixes[row])

        return self._each(write, len(batch))

    def _description(self, image_id: str, pixels: NDArray[np.uint8], instruction: str) -> str:
        digest = hashlib.sha256(repr(pixels.shape).encode() + pixels.tobytes()).hexdigest()
        key = question_key(self._endpoint.model, instruction, digest)

        def ask() -> str:
            picture = {"type": "image_url", "image_url": {"url": _data_address(pixels)}}
            return self._endpoint.ask([{"type": "text", "text": instruction}, picture])

        return self._cache.get(key, ask, {"id": image_id, "model": self._endpoint.model})

    def _fitting(self, sentence: str, prefix: str) -> str:
        """Return the sentence, rewritten by the model where it is too long beside ``prefix``."""
        sentence = self._budget.bare(prefix, " ".join(sentence.split()).strip("\"'“” "))
        if self._budget.fits(prefix, sentence):
            return sentence
        instruction = rewrite(sentence, self._words(prefix))
        key = question_key(self._endpoint.model, instruction)
        shorter = self._cache.get(
            key, lambda: self._endpoint.ask(instruction), {"rewrites": sentence, "model": self._endpoint.model}
        )
        return " ".join(shorter.split()).strip("\"'“” ")

    def _words(self, prefix: str) -> int:
        return max(5, int(WORDS_A_TOKEN * (self._budget.limit - self._budget.tokens([prefix])[0])))

    def _each(self, work: Callable[[int], T], count: int) -> list[T]:
        """Return ``work`` of each row; after the first error no further one is begun."""
        with ThreadPoolExecutor(self._concurrency) as pool:
            pending = [pool.submit(work, row) for row in range(count)]
            try:
                return [future.result() for future in pending]
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise


def _data_address(pixels: NDArray[np.uint8]) -> str:
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, format="PNG")
    return f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
