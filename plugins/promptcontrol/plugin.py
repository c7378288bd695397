"""PromptControl: a ControlNet that draws dermoscopic images from a lesion mask and a prompt of type and attributes.

Paper: "Boosting Dermatoscopic Lesion Segmentation via Diffusion Models with Visual and Textual Prompts"; METHODS.md,
part C; ControlNet: Zhang, Rao and Agrawala, "Adding Conditional Control to Text-to-Image Diffusion Models", ICCV 2023.
No weights are published with it; the base model is yours to choose and has a licence of its own. Values that the paper
leaves open are ours, and say so in their descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ...core.config import Checkpoint
from ...core.hookspecs import hookimpl
from ...core.roles import Generator, Plugin, Trainer
from ..stable_diffusion.captioning import CaptionerName, check_captioner
from ..stable_diffusion.settings import BASE, SamplingSettings, Scheduler, TuningSettings

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset


class PromptControlTrainerConfig(TuningSettings):
    """Settings of the trainer ``promptcontrol``; the defaults are those of ControlNet, or ours."""

    size: int = Field(512, ge=16, description="edge in pixels of the training images (ControlNet)")
    captioner: CaptionerName = Field(
        "derm-prompt", description="chain of annotators that writes the captions; empty: those of the data"
    )
    steps: int = Field(50_000, ge=1, description="optimisation steps (ours)")
    batch_size: int = Field(4, ge=1, description="images per step (ControlNet's tutorial)")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's rate, constant (ControlNet)")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (its default)")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient (ours)")
    empty_share: float = Field(0.5, ge=0, le=1, description="share of prompts that are left empty (ControlNet)")


class PromptControlTrainer(Trainer):
    """Trains a ControlNet on the masks and prompts of images; the base stays as it is.

    A prompt is the lesion type, where the data name one, and the caption. Images without a mask are left out.
    """

    name = "promptcontrol"
    Config = PromptControlTrainerConfig

    def setup(self, context: Context) -> None:
        """Look the captioner up; see :func:`captioning.check_captioner` for errors."""
        super().setup(context)
        check_captioner(self.config.captioner, context)

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        """Train on the images of ``train`` that have a mask; ``val`` is not used."""
        from . import training

        training.train(self.config, train, output, self.context)


class PromptControlGeneratorConfig(SamplingSettings):
    """Settings of the generator ``promptcontrol``."""

    checkpoint: Checkpoint = Field(description="folder that trainer promptcontrol wrote, or train:NAME")
    base: Checkpoint = Field(description=f"the base that it was trained on. {BASE}")
    size: int | None = Field(None, ge=8, description="edge in pixels of the images; default that of the training")
    scheduler: Scheduler = Field("ddim", description="way from noise to image; the paper's is ddim")
    num_inference_steps: int = Field(50, ge=2, description="steps of the scheduler (ours)")
    guidance_scale: float = Field(7.5, ge=0, description="classifier-free guidance (ours)")
    conditioning_scale: float = Field(1.0, ge=0, le=2, description="factor on what the ControlNet adds; 0: the base")


class PromptControlGenerator(Generator):
    """Draws images into the masks of a batch, by its prompts and labels where there are some; fills images, prompts.

    A case without prompt and label is drawn from its mask and the empty prompt, as in the paper's first experiment.
    """

    name = "promptcontrol"
    Config = PromptControlGeneratorConfig

    def setup(self, context: Context) -> None:
        """Load both networks; see :class:`generation.ControlledSampler` for errors."""
        super().setup(context)
        from .generation import ControlledSampler

        self._sampler = ControlledSampler(self.config, context)

    def generate(self, batch: Batch) -> Batch:
        """Fill images (N, 3, S, S) and prompts; masks stay."""
        return self._sampler.fill(batch)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [PromptControlTrainer, PromptControlGenerator]
