"""Fine-tuning of a Stable Diffusion base on images and prompts, and a generator that draws images from prompts alone.

Plain fine-tuning: the base's own loss on captioned images. DreamBooth: Ruiz et al. 2023, "DreamBooth: Fine Tuning
Text-to-Image Diffusion Models for Subject-Driven Generation", which binds a rare word to what the images show, and
keeps the class by learning from the base's own images of it (equation 2). Both are baselines of the DiDGen paper, which
gives no settings for them. The base model is yours to choose and has a licence of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from pydantic import Field

from ....core.hookspecs import hookimpl
from ....core.roles import Generator, Plugin, Trainer
from ..captioning import CaptionerName, check_captioner
from ..settings import SamplingSettings, TuningSettings

if TYPE_CHECKING:
    from ....core.batch import Batch
    from ....core.context import Context
    from ....core.dataset import Dataset


class FineTuningConfig(TuningSettings):
    """Settings of the trainer ``fine-tuning``; values are ours unless they name a source."""

    prompt: str = Field(
        "", description="prompt of every image, {label} for its class, as in DreamBooth; empty: captions"
    )
    captioner: CaptionerName = Field(
        "derm-prompt", description="where prompt is empty, chain of annotators that writes captions; empty: the data's"
    )
    prompt_dropout: float = Field(0.1, ge=0, le=1, description="share of prompts left empty, for guidance")
    prior_prompt: str = Field(
        "", description="DreamBooth's prompt of the class without the rare word, {label} for a class; empty: no prior"
    )
    prior_count: int = Field(1000, ge=1, description="images of the class drawn from the base before training")
    prior_weight: float = Field(1.0, ge=0, description="lambda, weight of the loss on these images (Ruiz et al.)")
    prior_steps: int = Field(50, ge=1, description="steps of DDIM in which they are drawn")
    prior_guidance_scale: float = Field(7.5, ge=0, description="classifier-free guidance with which they are drawn")
    batch_size: int = Field(4, ge=1, description="images per step; as many of the prior come on top")
    warmup_steps: int = Field(500, ge=0, description="steps of linear warm-up")
    lora_rank: int = Field(0, ge=0, description="rank of LoRA on the attention projections; 0: the whole U-Net")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, warmed up; 0: none")
    snapshot_every: int = Field(1000, ge=0, description="steps between pictures of samples; 0 for none")
    snapshot_count: int = Field(8, ge=1, description="samples in a picture")


class FineTuningTrainer(Trainer):
    """Fine-tunes the U-Net of a Stable Diffusion base on images and prompts; leaves a diffusers folder.

    The autoencoder and the text encoder stay as they are.
    """

    name = "fine-tuning"
    Config = FineTuningConfig

    def setup(self, context: Context) -> None:
        """Look the captioner up where there is no prompt; see :func:`captioning.check_captioner` for errors."""
        super().setup(context)
        if not self.config.prompt:
            check_captioner(self.config.captioner, context)

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        """Train on all images of ``train``; ``val`` is not used."""
        from . import training

        training.train(self.config, train, output, self.context)


class TextToImageConfig(SamplingSettings):
    """Settings of the generator ``stable-diffusion``."""

    prompt: str = Field("", description="prompt of cases that come without one, {label} for the case's class")
    negative_prompt: str = Field("", description="what guidance leads away from")


class TextToImage(Generator):
    """Draws images from prompts alone with any Stable Diffusion base, fine-tuned or not; fills images and prompts."""

    name = "stable-diffusion"
    Config = TextToImageConfig

    def setup(self, context: Context) -> None:
        """Load the base; see :class:`generation.ImageSampler` for errors."""
        super().setup(context)
        from .generation import ImageSampler

        self._sampler = ImageSampler(self.config, context)

    def generate(self, batch: Batch) -> Batch:
        """Fill images (N, 3, S, S) and prompts."""
        return self._sampler.fill(batch)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [FineTuningTrainer, TextToImage]
