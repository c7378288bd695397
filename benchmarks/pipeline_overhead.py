"""What a run costs beside its stages: encoding, hashing, syncing and the ledger."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from pathlib import Path

import torch
from torch import Tensor
from torchvision.transforms.functional import to_pil_image

import lesionforge as lf
from lesionforge.kernels.measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender

from .benchmark import Benchmark

CHAIN = "phantom(size=64) | mask-quality"
BATCH = 32


def pipeline_case(count: int, device: str) -> Case:
    """A run of `count` cases, against a script that saves its images, and against the stages that store nothing."""
    chain = lf.Chain.parse(CHAIN)
    stages = chain.open(device=device, precision="fp32")

    def batches() -> Iterator[lf.Batch]:
        for first in range(0, count, BATCH):
            batch = lf.Batch.blank(min(BATCH, count - first), first=first)
            for stage in stages:
                batch = stage(batch)
            yield batch

    def alone() -> Tensor:
        return torch.cat([scores_of(batch) for batch in batches()])

    def script() -> Tensor:
        scores = []
        with tempfile.TemporaryDirectory() as folder:
            for batch in batches():
                scores.append(scores_of(batch))
                for name, image, mask in zip(batch.ids, required(batch.images), required(batch.masks), strict=True):
                    to_pil_image(image.cpu()).save(Path(folder, f"{name}.png"))
                    to_pil_image(mask.cpu()).save(Path(folder, f"{name}-mask.png"))
        return torch.cat(scores)

    def run() -> Tensor:
        with tempfile.TemporaryDirectory() as folder:
            settings = {"count": count, "batch_size": BATCH, "precision": "fp32", "report": False}
            made = chain.run(output=Path(folder, "run"), device=device, **settings)
            rows = [[value for _, value in sorted(case.scores.items())] for case in made.cases()]
        return torch.tensor(rows, dtype=torch.float64)

    contenders = (
        Contender("script", script, "the stages, images and masks saved by Pillow", 1e-6, REFERENCE_METHOD),
        Contender("stages alone", alone, "nothing stored: no run can be faster", 1e-6, BEST_TORCH),
        Contender("lesionforge", run, "a run with its ledger", 1e-6, automatic=True),
    )
    return Case("pipeline_overhead", f"{count} phantoms of 64 px through mask-quality", contenders, alone, device)


def scores_of(batch: lf.Batch) -> Tensor:
    """(cases, scores), scores by name, float64."""
    return torch.stack([column.double().cpu() for _, column in sorted(batch.scores.items())], dim=1)


def required(column: Tensor | None) -> Tensor:
    assert column is not None
    return column


BENCHMARK = Benchmark(
    "pipeline_overhead",
    "a whole run against its stages alone",
    (512, 2048),
    (8,),
    pipeline_case,
    devices=("cpu",),
)
