"""Sentences from a vision-language model of transformers, from a local folder or the hub."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import torch
from PIL import Image

from ...core.checkpoints import checkpoint_path
from ...core.errors import CheckpointError, first_line
from ..stable_diffusion.progress_bars import without_progress_bars
from .instructions import DESCRIBE
from .pixels import as_bytes

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.context import Context

LONGEST_ANSWER = 120
"""Tokens of the model's own vocabulary that it may write."""


class VisionLanguageCaptioner:
    """A model that takes images and text and writes text, decoded greedily.

    Args:
        checkpoint: folder or hub name of weights in safetensors, with its processor; no code in it is run.

    Raises:
        CheckpointError: there is no such model, or it is of another kind.
    """

    def __init__(self, checkpoint: str, context: Context) -> None:
        from transformers import AutoModelForImageTextToText, AutoProcessor

        self._context = context
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

    @torch.no_grad()
    def sentences(self, batch: Batch) -> list[str]:
        """Return one sentence for each image (N, 3, H, W) of the batch."""
        assert batch.images is not None
        pictures = [Image.fromarray(pixels) for pixels in as_bytes(batch.images)]
        # All images have one size and all cases one instruction, so that nothing has to be padded.
        text = [self._instruction()] * len(pictures)
        inputs = self._processor(images=[[picture] for picture in pictures], text=text, return_tensors="pt")
        inputs = inputs.to(self._context.device)
        with self._context.autocast():
            written = self._model.generate(**inputs, do_sample=False, num_beams=1, max_new_tokens=LONGEST_ANSWER)
        if not self._model.config.is_encoder_decoder:
            written = written[:, inputs["input_ids"].shape[1] :]
        answers = self._processor.batch_decode(written, skip_special_tokens=True)
        return [" ".join(answer.split()) for answer in answers]

    def _instruction(self) -> str:
        """Return the instruction as the model's chat template words it, or bare where it has none."""
        if getattr(self._processor, "chat_template", None) is None:
            return DESCRIBE
        parts = [{"type": "image"}, {"type": "text", "text": DESCRIBE}]
        return self._processor.apply_chat_template([{"role": "user", "content": parts}], add_generation_prompt=True)
