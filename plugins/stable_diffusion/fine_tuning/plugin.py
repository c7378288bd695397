"""Fine-tuning of a Stable Diffusion base on images and prompts, and a generator that draws images from prompts alone.

Plain fine-tuning: the base's own loss on captioned images. DreamBooth: Ruiz et al. 2023, "DreamBooth: Fine Tuning
Text-to-Image Diffusion Models for Subject-Driven Generation", which binds a rare word to what the images show, and
keeps the class by learning from the base's own images of it (equation 2). Both are baselines of the DiDGen paper, which
gives no settings for them. The base model is yours to choose and has a licence of its own.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ....core.config import Checkpoint, PluginConfig
from ....core.hookspecs import hookimpl
from ....core.roles import Generator, Plugin, Trainer
from ..captioning import CaptionerName, check_captioner

if TYPE_CHECKING:
    from ....core.batch import Batch
    from ....core.context import Context
    from ....core.dataset import Dataset


class FineTuningConfig(PluginConfig):
    """Settings of the trainer ``fine-tuning``; values are ours unless they name a source."""

    base: Checkpoint = Field(description="Stable Diffusion base: hub name, diffusers folder, builtin:NAME, train:NAME")
    size: int = Field(512, ge=16, description="edge in pixels of the training images")
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
    steps: int = Field(20_000, ge=1, description="optimisation steps")
    batch_size: int = Field(4, ge=1, description="images per step; as many of the prior come on top")
    learning_rate: float = Field(1e-5, gt=0, description="AdamW's rate, constant after the warm-up")
    warmup_steps: int = Field(500, ge=0, description="steps of linear warm-up")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    lora_rank: int = Field(0, ge=0, description="rank of LoRA on the attention projections; 0: the whole U-Net")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, warmed up; 0: none")
    gradient_checkpointing: bool = Field(False, description="compute activations again and save their memory")
    checkpoint_every: int = Field(1000, ge=1, description="steps between resume points")
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


class TextToImageConfig(PluginConfig):
    """Settings of the generator ``stable-diffusion``."""

    checkpoint: Checkpoint = Field(description="diffusers folder, train:NAME, builtin:NAME or hub name")
    prompt: str = Field("", description="prompt of cases that come without one, {label} for the case's class")
    negative_prompt: str = Field("", description="what guidance leads away from")
    size: int | None = Field(None, ge=8, description="edge in pixels of the images; default the base's own")
    scheduler: Literal["ddim", "pndm", "ddpm", "dpm-solver++", "sde-dpm-solver++"] = Field(
        "ddim", description="way from noise to image"
    )
    num_inference_steps: int = Field(50, ge=1, description="steps of the scheduler")
    guidance_scale: float = Field(7.5, ge=0, description="classifier-free guidance")
    compile: bool = Field(False, description="compile the U-Net; worth it for hundreds of cases, slow for a few")


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
