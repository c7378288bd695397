"""What fixes the generator's layers; no torch here, so that listing plugins stays fast."""

from __future__ import annotations

from typing import Literal, Self

from pydantic import Field, model_validator

import lesionforge as lf


class GeneratorShape(lf.PluginConfig):
    """Layers of the generator and the edge of its images."""

    size: int = Field(256, ge=16, le=2048, description="edge in pixels of the images (ours)")
    width: int = Field(64, ge=4, multiple_of=2, description="channels of the global generator's first level (paper)")
    downsamplings: int = Field(4, ge=1, le=6, description="times that the global generator halves the edge (paper)")
    blocks: int = Field(9, ge=1, description="ResNet blocks of the global generator (paper)")
    enhancer: bool = Field(
        True, description="add the local enhancer at full size, the global generator working at half (paper)"
    )
    enhancer_blocks: int = Field(3, ge=1, description="ResNet blocks of the enhancer, where there is one (paper)")

    @model_validator(mode="after")
    def _divides(self) -> Self:
        halvings = self.downsamplings + self.enhancer
        # Reflection and instance normalisation need more than one pixel.
        if self.size % 2**halvings or self.size < 2 ** (halvings + 1):
            raise ValueError(
                f"size {self.size} is halved {halvings} times here and must be a multiple of {2**halvings}, at least "
                f"{2 ** (halvings + 1)}; change size or downsamplings"
            )
        return self


class ModelCard(GeneratorShape):
    """What ``config.json`` beside the published weights says: enough to rebuild and feed the generator.

    Attributes:
        kind, version: mark the file as ours.
        classes: class names in the order of their planes; empty where the mask alone is the condition.
        dataset: name of the training data.
        phantom: True where procedural phantoms were among the training data.
    """

    kind: Literal["pix2pixhd"] = "pix2pixhd"
    version: Literal[1] = 1
    classes: tuple[str, ...] = ()
    dataset: str = ""
    phantom: bool = False
