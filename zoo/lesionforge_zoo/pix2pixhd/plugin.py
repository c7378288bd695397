"""pix2pixHD: images drawn into lesion masks by a conditional adversarial network, which others compare with.

Paper: Wang, Liu, Zhu, Tao, Kautz and Catanzaro, "High-Resolution Image Synthesis and Semantic Manipulation with
Conditional GANs", CVPR 2018 (arXiv 1711.11585). The trainer makes the weights from your own images. Values that the
paper leaves open, or that other images than its need, are ours and say so; "released" means the authors' code.
"""

from __future__ import annotations

from pathlib import Path
from typing import Self

from pydantic import Field, model_validator

import lesionforge as lf

from .config import GeneratorShape


class Pix2PixHDTrainerConfig(GeneratorShape):
    """Settings of the trainer ``pix2pixhd``."""

    classes: bool = Field(False, description="condition on the dataset's labels: the mask in its class's plane too")
    discriminators: int = Field(3, ge=1, le=4, description="discriminators, at the full edge, a half ... (paper: 3)")
    discriminator_width: int = Field(64, ge=4, description="channels of a discriminator's first layer (paper)")
    discriminator_halvings: int = Field(
        3, ge=1, le=5, description="layers of a discriminator that halve the edge; with 3 it judges 70 x 70 (paper)"
    )
    feature_matching_weight: float = Field(10.0, ge=0, description="weight of the feature matching loss (paper)")
    perceptual_weights: lf.Checkpoint | None = Field(
        None,
        description="local .safetensors or .pth file of torchvision's vgg19 for the perceptual loss; none: without it",
    )
    perceptual_weight: float = Field(10.0, ge=0, description="weight of the perceptual loss (paper)")
    coarse_steps: int = Field(
        25_000, ge=0, description="with enhancer: steps of the global generator alone at half size (number ours)"
    )
    enhancer_steps: int = Field(
        5_000, ge=0, description="with enhancer: steps of the enhancer around the fixed global generator (number ours)"
    )
    steps: int = Field(50_000, ge=1, description="steps of all networks at full size (ours)")
    batch_size: int = Field(8, ge=1, description="images per step (ours; released: 1)")
    learning_rate: float = Field(2e-4, gt=0, description="Adam's base rate (paper)")
    beta1: float = Field(0.5, ge=0, lt=1, description="Adam's first decay (released)")
    beta2: float = Field(0.999, ge=0, lt=1, description="Adam's second decay (released)")
    decay_share: float = Field(
        0.5, ge=0, le=1, description="share of each phase, its end, in which the rate falls linearly to 0 (paper: half)"
    )
    flips: bool = Field(True, description="random flips, left-right and up-down (ours)")
    checkpoint_every: int = Field(1000, ge=1, description="steps between resume points")
    snapshot_every: int = Field(5000, ge=0, description="steps between sample sheets; 0 for none")

    @model_validator(mode="after")
    def _phases_can_run(self) -> Self:
        edge = self.size // 2 if self.enhancer and self.coarse_steps else self.size
        if edge < 2**self.discriminators:
            raise ValueError(
                f"at {edge} pixels discriminator {self.discriminators} would see less than 2; lower discriminators"
            )
        if self.enhancer and self.enhancer_steps and not self.coarse_steps:
            raise ValueError("enhancer_steps without coarse_steps would fix a global generator that learnt nothing")
        if self.perceptual_weights is not None and edge < 16:
            raise ValueError(f"perceptual_weights: VGG-19 needs 16 pixels, not {edge}")
        return self


class Pix2PixHDTrainer(lf.Trainer):
    """Trains the generator against discriminators at several scales, on the images of the data that have a mask.

    With the enhancer it goes from coarse to fine: the global generator at half size, the enhancer around it, then both.
    """

    name = "pix2pixhd"
    Config = Pix2PixHDTrainerConfig

    def train(self, train: lf.Dataset, val: lf.Dataset | None, output: Path) -> None:
        """Train on the images of ``train`` that have a mask; ``val`` is not used."""
        from . import training

        training.train(self.config, train, output, self.context)


class Pix2PixHDGeneratorConfig(lf.PluginConfig):
    """Settings of the generator ``pix2pixhd``."""

    checkpoint: lf.Checkpoint = Field(description="finished output folder of trainer pix2pixhd, or train:NAME")


class Pix2PixHDGenerator(lf.Generator):
    """Draws images into the masks of a batch; a mask always gives the same image, so diversity comes from the masks.

    A checkpoint that was trained with classes needs the labels of an earlier stage too.
    """

    name = "pix2pixhd"
    Config = Pix2PixHDGeneratorConfig

    def setup(self, context: lf.Context) -> None:
        """Load the network; see :class:`generation.MaskPainter` for errors."""
        super().setup(context)
        from .generation import MaskPainter

        self._painter = MaskPainter(Path(self.config.checkpoint), context)

    def generate(self, batch: lf.Batch) -> lf.Batch:
        """Fill images (N, 3, S, S), S the checkpoint's size; masks stay."""
        return self._painter.fill(batch)


@lf.hookimpl
def register_plugins() -> list[type]:
    return [Pix2PixHDTrainer, Pix2PixHDGenerator]
