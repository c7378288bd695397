"""Automatic lesion masks, for generators that paint lesions into them: constructed ones, and real ones transformed.

Paper: "Boosting Dermatoscopic Lesion Segmentation via Diffusion Models with Visual and Textual Prompts", section 2.3;
METHODS.md, part C. The paper gives steps and no numbers: every number here is ours, and so is the fit to real masks.
"""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...core.config import PluginConfig
from ...core.errors import PluginError, PluginFailure
from ...core.hookspecs import hookimpl
from ...core.roles import Generator, Plugin

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.batch import Batch
    from ...core.dataset import Dataset
    from .drawing import Finish

ATTEMPTS = 8
MEASURING_BATCH = 64
SHAPES, MASKS = "shapes", "masks"


class Finishing(PluginConfig):
    """What is done to every mask in the end."""

    size: int = Field(512, ge=16, le=4096, multiple_of=8, description="edge of the masks in pixels")
    smoothing: float = Field(
        0.0, ge=0, le=0.1, description="standard deviation of a Gaussian blur before the threshold, in image edges"
    )
    opening: float = Field(0.01, ge=0, le=0.2, description="diameter of the opening's ellipse in image edges; 0: none")
    closing: float = Field(0.01, ge=0, le=0.2, description="diameter of the closing's ellipse in image edges; 0: none")


class _DrawnMasks(Generator):
    """Draws masks anew, up to :data:`ATTEMPTS` times, until no case's is empty."""

    def generate(self, batch: Batch) -> Batch:
        """Fill masks (N, 1, size, size), each one 8-connected component.

        Raises:
            PluginFailure: a case's mask came out empty every time.
        """
        masks = self._draw(batch.seeds, 0)
        for attempt in range(1, ATTEMPTS):
            empty = ~masks.flatten(1).any(1)
            if not bool(empty.any()):
                break
            # All cases are drawn again, since the bits of a batch are those of its size.
            masks = masks.where(~empty[:, None, None, None], self._draw(batch.seeds, attempt))
        for case, mask in zip(batch.ids, masks, strict=True):
            if not bool(mask.any()):
                raise PluginFailure(
                    f"stage {self.context.name}: the mask of {case} came out empty {ATTEMPTS} times; "
                    "lower opening or raise size"
                )
        return batch.with_columns(masks=masks)

    @abstractmethod
    def _draw(self, seeds: Sequence[int], attempt: int) -> Tensor:
        """Return the masks of the cases' draw number ``attempt``, some perhaps empty."""

    def _finish(self) -> Finish:
        from .drawing import Finish

        return Finish(self.config.smoothing, self.config.opening, self.config.closing)

    def _uniform(self, seeds: Sequence[int], count: int, attempt: int) -> Sequence[Tensor]:
        """Return ``count`` columns (N,) of uniform numbers in [0, 1)."""
        from ...kernels import seeded_uniform, stream_of

        stream = stream_of(f"{self.context.name} shape")
        draws = seeded_uniform(seeds, (count,), stream=stream, step=attempt, device=self.context.device)
        return draws.unbind(1)

    def _fields(self, seeds: Sequence[int], fineness: Tensor, attempt: int) -> Tensor:
        """Return the cases' deformation fields; ``fineness`` (N,) in [0, 1) is how much of them is fine."""
        from ...kernels import stream_of
        from .drawing import deformation_fields

        falloff = 0.6 + 0.9 * fineness
        return deformation_fields(seeds, falloff, stream=stream_of(f"{self.context.name} field"), step=attempt)


class ConstructedMasks(_DrawnMasks):
    """Draws ellipses at random places, elastically deformed, opened and closed; needs no data.

    The centre is uniform, and the radius uniform between ``min_radius`` and the distance to the image's edge.
    """

    name = "constructed-masks"

    class Config(Finishing):
        min_radius: float = Field(0.1, ge=0.02, le=0.45, description="smallest radius in image edges")
        max_elongation: float = Field(1.0, ge=1, le=4, description="largest ratio of the axes; 1 draws circles")
        max_deformation: float = Field(
            0.15, ge=0, le=1, description="strongest elastic deformation in radii; each case draws up to it"
        )

    def _draw(self, seeds: Sequence[int], attempt: int) -> Tensor:
        import torch

        from .drawing import draw
        from .shapes import Shapes

        config = self.config
        x, y, length, axes, turn, deformation, fineness = self._uniform(seeds, 7, attempt)
        centre = config.min_radius + (1 - 2 * config.min_radius) * torch.stack((x, y), dim=1)
        to_edge = torch.minimum(centre, 1 - centre).amin(1)
        radius = config.min_radius + length * (to_edge - config.min_radius)
        shapes = Shapes(
            area=torch.pi * radius**2,
            centre=centre,
            elongation=1 + axes * (config.max_elongation - 1),
            angle=torch.pi * turn,
            roughness=torch.zeros_like(x),
        )
        fields = self._fields(seeds, fineness, attempt)
        return draw(shapes, config.max_deformation * deformation, fields, config.size, self._finish())


class LesionMasks(_DrawnMasks):
    """Draws masks like those of the real training split, by either of the paper's two routes.

    ``constructed`` makes new outlines whose area, eccentricity, place and roughness are distributed as the real masks',
    together: each case takes those of one real mask with some noise. ``transformed`` resizes, turns and deforms a real
    mask about its centre; provenance records ``real_mask_sha256``, the hash of that mask's bytes (0 and 1, row by row).
    What was fitted is kept in the run: the measured shapes, or the masks at one bit a pixel.
    """

    name = "lesion-masks"
    needs_fit = True

    class Config(Finishing):
        route: Literal["constructed", "transformed"] = Field("constructed", description="the paper's route to a mask")
        jitter: float = Field(
            0.2, ge=0, le=1, description="constructed: noise on each measure, in its standard deviations"
        )
        max_scale: float = Field(1.25, ge=1, le=2, description="transformed: largest factor on lengths, either way")
        max_turn: float = Field(180.0, ge=0, le=180, description="transformed: largest turn in degrees, either way")
        max_deformation: float = Field(0.15, ge=0, le=1, description="transformed: strongest deformation in radii")
        limit: int = Field(4096, ge=1, description="real masks fitted to at most, the first of the training split")

    def fit(self, real: Dataset) -> Mapping[str, Tensor]:
        """Return the shapes (M, 6) fp32 of the masks that are not empty, or those masks (M, size, size / 8) uint8.

        Raises:
            DataError: the data have no masks.
            PluginError: all of them are empty.
        """
        import numpy as np
        import torch

        from .fitting import FITTED
        from .shapes import measure

        constructed = self.config.route == "constructed"
        dataset = real.with_masks().resized(FITTED if constructed else self.config.size)
        count, parts = min(len(dataset), self.config.limit), []
        for first in range(0, count, MEASURING_BATCH):
            masks = dataset.masks_array(range(first, min(first + MEASURING_BATCH, count)))
            masks = masks[masks.any(axis=(1, 2))]
            if constructed:
                parts.append(measure(torch.from_numpy(masks)[:, None]).table())
            else:
                parts.append(torch.from_numpy(np.packbits(masks, axis=-1)))
            self.context.progress(min(first + MEASURING_BATCH, count), count, {})
        fitted = torch.cat(parts)
        if not len(fitted):
            raise PluginError(f"stage {self.context.name}: every mask of {real.name} is empty at {dataset.size} px")
        return {SHAPES if constructed else MASKS: fitted}

    def load_fit(self, state: Mapping[str, Tensor]) -> None:
        self._fitted = state[SHAPES if self.config.route == "constructed" else MASKS]

    def generate(self, batch: Batch) -> Batch:
        """Fill masks (N, 1, size, size); see :class:`_DrawnMasks` for errors."""
        filled = super().generate(batch)
        if self.config.route == "constructed":
            return filled
        hashes = [hashlib.sha256(mask.byte().cpu().numpy().tobytes()).hexdigest() for mask in self._real(batch.seeds)]
        return filled.with_columns(provenance=[{"real_mask_sha256": name} for name in hashes])

    def _draw(self, seeds: Sequence[int], attempt: int) -> Tensor:
        return self._constructed(seeds, attempt) if self.config.route == "constructed" else self._moved(seeds, attempt)

    def _constructed(self, seeds: Sequence[int], attempt: int) -> Tensor:
        from ...kernels import stream_of
        from .drawing import draw
        from .fitting import drawn_shapes, matched

        choice, fineness = self._uniform(seeds, 2, attempt)
        shapes = drawn_shapes(
            self._fitted.to(self.context.device),
            choice,
            seeds,
            self.config.jitter,
            stream=stream_of(f"{self.context.name} noise"),
            step=attempt,
        )
        fields, finish = self._fields(seeds, fineness, attempt), self._finish()
        return draw(*matched(shapes, fields, finish), fields, self.config.size, finish)

    def _moved(self, seeds: Sequence[int], attempt: int) -> Tensor:
        import math

        import torch

        from .drawing import transform

        config = self.config
        scale, turn, deformation, fineness = self._uniform(seeds, 4, attempt)
        return transform(
            self._real(seeds),
            torch.exp((2 * scale - 1) * math.log(config.max_scale)),
            (2 * turn - 1) * math.radians(config.max_turn),
            config.max_deformation * deformation,
            self._fields(seeds, fineness, attempt),
            self._finish(),
        )

    def _real(self, seeds: Sequence[int]) -> Tensor:
        """Return each case's real mask (N, 1, size, size), the same in every attempt."""
        import numpy as np
        import torch

        from ...kernels import seeded_uniform, stream_of

        draws = seeded_uniform(seeds, (), stream=stream_of(f"{self.context.name} choice")).double()
        rows = (draws * len(self._fitted)).long()
        masks = np.unpackbits(self._fitted[rows].numpy(), axis=-1)
        return torch.from_numpy(masks)[:, None].to(self.context.device, torch.float32)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [ConstructedMasks, LesionMasks]
