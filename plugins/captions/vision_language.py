"""Sentences from a vision-language model of transformers, from a local folder or the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ...core.checkpoints import checkpoint_path
from ...core.errors import CheckpointError, first_line
from ..stable_diffusion.progress_bars import without_progress_bars
from .instructions import describe
from .pixels import as_bytes

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from ...core.batch import Batch
    from ...core.context import Context
    from .budget import PromptBudget

LONGEST_ANSWER = 120
"""Tokens of the model's own vocabulary that it may write."""


class VisionLanguageCaptioner:
    """A model that takes images and text and writes text, decoded greedily.

    Args:
        checkpoint: folder or hub name of weights in safetensors, with its processor; no code in it is run.
        budget: prefix and terms of what is asked for.

    Raises:
        CheckpointError: there is no such model, or it is of another kind.
    """

    def __init__(self, checkpoint: str, budget: PromptBudget, context: Context) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._budget, self._context = budget, context
        path = checkpoint_path(checkpoint)
        name, _, revision = (str(path), "", "") if path.exists() else checkpoint.partition("@")
        place: Any = {"revision": revision or "main", "trust_remote_code": False, "local_files_only": path.exists()}
        try:
            self._processor: Any = AutoProcessor.from_pretrained(name, **place)
            with without_progress_bars():
                model: Any = AutoModelForImageTextToText.from_pretrained(name, use_safetensors=True, **place)
        except (OSError, ValueError, KeyError, ImportError) as error:
            raise CheckpointError(f"{checkpoint!r} is no usable vision-language model: {first_line(error)}") from error
        if not hasattr(self._processor, "image_processor"):
            raise CheckpointError(f"{checkpoint!r} has no image processor, so it cannot look at images")
        self._model: Any = model.to(context.device).eval()

    def sentences(self, batch: Batch) -> list[str]:
        """Return one sentence for each image (N, 3, H, W) of the batch."""
        assert batch.images is not None
        pixels, labels = as_bytes(batch.images), batch.labels or (None,) * len(batch)
        rows_by_instruction: dict[str, list[int]] = {}
        for row, (label, prefix) in enumerate(zip(labels, self._budget.prefixes(batch), strict=True)):
            rows_by_instruction.setdefault(describe(label, prefix, self._budget.terms), []).append(row)
        sentences = [""] * len(batch)
        for instruction, rows in rows_by_instruction.items():
            for row, answer in zip(rows, self._answers(instruction, [pixels[row] for row in rows]), strict=True):
                sentences[row] = answer
        return sentences

    @torch.no_grad()
    def _answers(self, instruction: str, pixels: Sequence[NDArray[np.uint8]]) -> list[str]:
        """Return the answers about images of one size to one instruction, so that nothing has to be padded."""
        pictures = [Image.fromarray(image) for image in pixels]
        text = [self._worded(instruction)] * len(pictures)
        inputs = self._processor(images=[[picture] for picture in pictures], text=text, return_tensors="pt")
        inputs = inputs.to(self._context.device)
        with self._context.autocast():
            written = self._model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=LONGEST_ANSWER)
        if not self._model.config.is_encoder_decoder:
            written = written[:, inputs["input_ids"].shape[1] :]
        answers = self._processor.batch_decode(written, skip_special_tokens=True)
        return [" ".join(answer.split()) for answer in answers]

    def _worded(self, instruction: str) -> str:
        """Return the instruction as the model's chat template words it, or bare where it has none."""
        if getattr(self._processor, "chat_template", None) is None:
            return instruction
        parts = [{"type": "image"}, {"type": "text", "text": instruction}]
        return self._processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
