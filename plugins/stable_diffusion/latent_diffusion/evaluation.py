"""How well a finished base codes images that it has not seen, and predicts in their latents."""

from __future__ import annotations

import csv
import io
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor

from ....core.context import Context
from ....core.dataset import Dataset
from ....core.durable import write_text
from ....core.seeding import name_seed
from ....kernels import seeded_normal, stream_of
from ..base import load_base
from ..sampling import decode, encode
from .captions import captions_in_poses, token_rows
from .card import add_measurements
from .images import pixels
from .losses import prediction_errors
from .networks import SCHEDULE, TextConditionedDenoiser

if TYPE_CHECKING:
    from .plugin import LatentDiffusionConfig

BATCH = 16
TIMESTEPS = range(50, 1000, 100)


def evaluate_base(config: LatentDiffusionConfig, context: Context, test: Dataset, output: Path) -> Mapping[str, float]:
    """Return the means over ``test`` of ``reconstruction_psnr_db`` and ``prediction_error``, and list both an image.

    The peak signal-to-noise ratio is of the decoded posterior mean at the trained size. The prediction error is the
    mean squared error of the velocity at ten timesteps from 50 to 950, with the image's caption and its own noise.
    """
    test = test.resized(config.size)
    base = load_base(output).to(context.device)
    denoiser = TextConditionedDenoiser(base.text_encoder, base.unet)
    tokens = token_rows(base.tokenizer, captions_in_poses(test, config, 1, context)[0]).to(context.device)
    rows: list[tuple[str, float, float]] = []
    with torch.inference_mode():
        for start in range(0, len(test), BATCH):
            chosen = range(start, min(start + BATCH, len(test)))
            ids, images = [test.ids[row] for row in chosen], (pixels(test, chosen, context.device) + 1) / 2
            with context.autocast():
                latents = encode(base, images).float()
                errors = _prediction_errors(denoiser, latents, tokens[list(chosen)], ids)
            squared = (decode(base, latents, context=context) - images).square().mean(dim=(1, 2, 3))
            rows += zip(ids, (-10 * squared.log10()).tolist(), errors.tolist(), strict=True)
            context.progress(len(rows), len(test), {})
    write_text(output / "per_image.csv", _table(rows))
    metrics = {
        "reconstruction_psnr_db": sum(row[1] for row in rows) / len(rows),
        "prediction_error": sum(row[2] for row in rows) / len(rows),
    }
    add_measurements(output, test, metrics)
    return metrics


def _prediction_errors(denoiser: TextConditionedDenoiser, latents: Tensor, tokens: Tensor, ids: list[str]) -> Tensor:
    seeds, total = [name_seed(image_id) for image_id in ids], torch.zeros(len(ids), device=latents.device)
    for number, timestep in enumerate(TIMESTEPS):
        noise = seeded_normal(
            seeds, latents.shape[1:], step=number, stream=stream_of("evaluation"), device=latents.device
        )
        timesteps = torch.full((len(ids),), timestep, device=latents.device)
        total += prediction_errors(denoiser, SCHEDULE, latents, tokens, timesteps, noise)
    return total / len(TIMESTEPS)


def _table(rows: list[tuple[str, float, float]]) -> str:
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow(("image_id", "reconstruction_psnr_db", "prediction_error"))
    writer.writerows(rows)
    return text.getvalue()
