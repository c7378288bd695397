"""What a training prepares once and keeps: captions beside its results, images as latents beside its resume points.

A resumed training reads both and starts at once, on the same bits. Latents go when the job is done, captions stay.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from pathlib import Path

from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor

from ...core.context import Context
from ...core.dataset import Dataset
from ...core.durable import write_bytes, write_text
from ...core.errors import CheckpointError, StoreError
from ...core.training_state import STATE_FOLDER
from .base import StableDiffusionBase
from .captioning import Captioner
from .latents import PosteriorLatents, posterior_latents

CAPTIONS = "captions.jsonl"
LATENTS = Path(STATE_FOLDER, "latents.safetensors")


def kept_captions(
    dataset: Dataset,
    captioner: str,
    context: Context,
    output: Path,
    *,
    check: Callable[[list[str]], None] = lambda captions: None,
) -> list[str]:
    """Return one caption an image, those in ``captions.jsonl`` where it is there; see :class:`captioning.Captioner`.

    Args:
        check: raises where the captions cannot be used, before they are kept.

    Raises:
        DataError: an image gets no caption.
        StoreError: the file is there already and does not fit the images.
    """

    def written() -> list[list[str]]:
        captions = Captioner(captioner, context).captions(
            dataset, progress=lambda done: context.progress(done, len(dataset), {})
        )
        check(captions)
        return [captions]

    return kept_by_pose(output, dataset, written)[0]


def kept_by_pose(
    output: Path, dataset: Dataset, captioned: Callable[[], list[list[str]]], *, poses: int = 1
) -> list[list[str]]:
    """Return captions by pose and row: those in ``captions.jsonl``, or what ``captioned`` returns, kept there.

    Raises:
        StoreError: the file is there already and does not fit the images.
    """
    file = output / CAPTIONS
    if not file.exists():
        written = captioned()
        rows = (
            {"image_id": image_id, **({"pose": pose} if poses > 1 else {}), "prompt": captions[row]}
            for row, image_id in enumerate(dataset.ids)
            for pose, captions in enumerate(written)
        )
        write_text(file, "".join(f"{json.dumps(row, ensure_ascii=False)}\n" for row in rows))
    try:
        # A caption may hold characters at which splitlines() breaks.
        lines = [json.loads(line) for line in file.read_text(encoding="utf-8").split("\n") if line]
        found = {(row["image_id"], row.get("pose", 0)): str(row["prompt"]) for row in lines}
        return [[found[image_id, pose] for image_id in dataset.ids] for pose in range(poses)]
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise StoreError(f"{file} does not fit the training images: {error!r}; delete it to caption again") from error


def kept_latents(base: StableDiffusionBase, dataset: Dataset, context: Context, output: Path) -> PosteriorLatents:
    """Return what the VAE says of the images, see :func:`latents.posterior_latents`; kept until the job is done.

    Raises:
        CheckpointError: what was kept is damaged or of other images.
    """
    kept = kept_tensors(output / LATENTS, lambda: vars(posterior_latents(base, dataset, context)), len(dataset))
    return PosteriorLatents(**kept)


def kept_tensors(
    file: Path, made: Callable[[], Mapping[str, Tensor]], images: int, *, axis: int = 0
) -> dict[str, Tensor]:
    """Return the tensors in ``file``, or what ``made`` returns, kept there.

    Raises:
        CheckpointError: the file is damaged, or has not ``images`` along ``axis``.
    """
    if not file.exists():
        file.parent.mkdir(parents=True, exist_ok=True)
        write_bytes(file, save({name: tensor.contiguous() for name, tensor in made().items()}))
    try:
        tensors = load_file(file)
        if any(tensor.shape[axis] != images for tensor in tensors.values()):
            raise ValueError("it is of other images")
    except (OSError, SafetensorError, ValueError, IndexError) as error:
        raise CheckpointError(f"{file} cannot be used: {error}; delete it to encode the images again") from error
    return tensors
