"""Masks of real lesions as conditions: a generator that fills masks alone, for others that paint lesions into them."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping
from typing import TYPE_CHECKING

from pydantic import Field

from ...core.config import PluginConfig
from ...core.errors import PluginError
from ...core.hookspecs import hookimpl
from ...core.roles import Generator, Plugin

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray
    from torch import Tensor

    from ...core.batch import Batch
    from ...core.dataset import Dataset

MASKS = "masks"


class RealMasks(Generator):
    """Draws one mask of the real training split a case, by the case's seed.

    Fitting keeps the masks, one bit a pixel, in the run, so that a case can be made again without the data. Empty masks
    are left out. Provenance records ``condition_sha256``, the hash of the mask's bytes (0 and 1, row by row).
    """

    name = "real-masks"
    needs_fit = True

    class Config(PluginConfig):
        size: int = Field(512, ge=8, le=4096, multiple_of=8, description="edge of the masks in pixels")
        symmetries: bool = Field(
            False, description="turn and mirror each mask by one of the square's eight symmetries, by the seed (ours)"
        )
        limit: int = Field(4096, ge=1, description="masks kept at most, the first of the training split")

    def fit(self, real: Dataset) -> Mapping[str, Tensor]:
        """Return the packed masks (M, size, size / 8) uint8.

        Raises:
            DataError: the data have no masks.
            PluginError: all of them are empty.
        """
        import numpy as np
        import torch

        dataset = real.with_masks().resized(self.config.size)
        parts = []
        for first in range(0, min(len(dataset), self.config.limit), 256):
            masks = dataset.masks_array(range(first, min(first + 256, len(dataset), self.config.limit)))
            parts.append(np.packbits(masks[masks.any(axis=(1, 2))], axis=-1))
        packed = np.concatenate(parts)
        if not len(packed):
            raise PluginError(f"stage {self.context.name}: every mask of {real.name} is empty at {self.config.size} px")
        return {MASKS: torch.from_numpy(packed)}

    def load_fit(self, state: Mapping[str, Tensor]) -> None:
        self._packed = state[MASKS].numpy()

    def generate(self, batch: Batch) -> Batch:
        """Fill masks (N, 1, size, size) and each case's condition hash."""
        import numpy as np
        import torch

        from ...kernels import seeded_uniform, stream_of

        draws = seeded_uniform(batch.seeds, (2,), stream=stream_of(self.context.name)).double()
        rows = (draws[:, 0] * len(self._packed)).long().tolist()
        masks = np.unpackbits(self._packed[rows], axis=-1)
        if self.config.symmetries:
            turns = (draws[:, 1] * 8).long().tolist()
            masks = np.stack([symmetric(mask, number) for mask, number in zip(masks, turns, strict=True)])
        hashes = [{"condition_sha256": hashlib.sha256(mask.tobytes()).hexdigest()} for mask in masks]
        tensor = torch.from_numpy(masks).to(self.context.device, torch.float32)
        return batch.with_columns(masks=tensor[:, None], provenance=hashes)


def symmetric(mask: NDArray[np.uint8], number: int) -> NDArray[np.uint8]:
    """Return the (S, S) array turned by ``number`` % 4 quarters, and mirrored left to right from 4 on."""
    import numpy as np

    turned = np.rot90(mask, number % 4)
    return np.ascontiguousarray(np.fliplr(turned) if number >= 4 else turned)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [RealMasks]
