"""What both fitted filters need: their extractor, and its features of all real images."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import TYPE_CHECKING

import torch

from ...core.errors import DataError, PluginError
from ...core.registry import default_registry

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.context import Context
    from ...core.dataset import Dataset
    from ...core.roles import Extractor

BATCH_SIZE = 16


def ready_extractor(name: str, model: str | None, weights: str | None, context: Context, *, where: str) -> Extractor:
    """Return the extractor ``name``, set up in fp32; ``where`` names the stage in errors."""
    values = {key: value for key, value in (("model", model), ("weights", weights)) if value is not None}
    extractor: Extractor = (context.registry or default_registry()).create("extractor", name, values, where=where)
    extractor.setup(replace(context, precision="fp32"))
    return extractor


@torch.no_grad()
def over_real(real: Dataset, compute: Callable[[Tensor], Tensor], context: Context) -> Tensor:
    """Return ``compute``'s (B, K) rows for all images of ``real`` as (n, K) on the context's device.

    Batches are always full, the last one padded, so that a row depends on its own image alone.

    Raises:
        DataError: a row is not finite.
    """
    if not len(real):
        raise DataError(f"dataset {real.name} has no images to fit on")
    found = torch.empty(0)
    done = 0
    for batch in real.batches(BATCH_SIZE, masks=False):
        assert batch.images is not None
        count = len(batch)
        padded = batch.images[[*range(count), *[0] * (BATCH_SIZE - count)]]
        rows = compute(padded.to(context.device))[:count]
        if not done:
            found = rows.new_empty(len(real), rows.shape[1])
        found[done : done + count] = rows
        done += count
        context.progress(done, len(real), {})
    finite = found.isfinite().all(1)
    if not bool(finite.all()):
        bad = real.ids[int((~finite).nonzero()[0, 0])]
        raise DataError(f"dataset {real.name}: features of image {bad!r} are not finite; check the extractor's weights")
    return found


def described(measure: str, real: Dataset) -> dict[str, Tensor]:
    """Return what a fitted state says about itself: ``measure`` (UTF-8 bytes) and ``image_size`` (height, width)."""
    height, width = real.image(0).shape[:2]
    return {
        "measure": torch.tensor(list(measure.encode()), dtype=torch.uint8),
        "image_size": torch.tensor([height, width]),
    }


def check_measure(state: Mapping[str, Tensor], expected: str, *, stage: str) -> None:
    """Raise PluginError unless ``state`` was fitted with the measure ``expected``."""
    fitted = bytes(state["measure"].tolist()).decode()
    if fitted != expected:
        raise PluginError(f"stage {stage} was fitted with {fitted!r} but now measures {expected!r}; start a new run")


def check_size(images: Tensor, state: Mapping[str, Tensor], *, stage: str) -> None:
    """Raise PluginError unless (N, 3, H, W) images have the size that the real ones had."""
    fitted, found = tuple(state["image_size"].tolist()), tuple(images.shape[2:])
    if found != fitted:
        raise PluginError(
            f"stage {stage} was fitted on real images of {fitted[0]}x{fitted[1]} pixels, not {found[0]}x{found[1]}; "
            f"distances across sizes mean nothing: load the real data at the generator's size (data.size={found[0]})"
        )
