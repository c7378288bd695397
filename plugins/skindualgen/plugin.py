"""SkinDualGen: image and mask from one prompt, by Stable Diffusion with a 4-channel autoencoder and LoRA.

Paper: Xu, "SkinDualGen: Prompt-Driven Diffusion for Simultaneous Image-Mask Generation in Skin Lesions"; METHODS.md,
part B. No weights are published with it; the base model is yours to choose and has a licence of its own. Values that
the paper leaves open are ours, and say so in their descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, model_validator

from ...core.config import Checkpoint
from ...core.hookspecs import hookimpl
from ...core.roles import Generator, Plugin, Trainer
from ..data.icd11 import Terms
from ..stable_diffusion.captioning import CaptionerName, check_captioner
from ..stable_diffusion.settings import SamplingSettings, TuningSettings
from .wording import CAPTIONER

if TYPE_CHECKING:
    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class SkinDualGenTrainerConfig(TuningSettings):
    """Settings of the trainer ``skindualgen``; the defaults are the paper's where it names a value."""

    size: int = Field(256, ge=16, description="edge in pixels of the training images")
    prompts: Literal["class", "captions"] = Field(
        "class", description="class: the paper's template alone; captions: sentences that begin with it"
    )
    captioner: CaptionerName = Field(
        CAPTIONER, description="captions: chain of annotators that writes them; empty: those of the data"
    )
    terms: Terms = Field("plain", description="icd-11: classes in prompts as ICD-11 names them, not as the data do")
    prompt_dropout: float = Field(0.1, ge=0, le=1, description="share of prompts left empty, for guidance (ours)")
    steps: int = Field(41_000, ge=1, description="optimisation steps; the paper's 100 epochs of 1,640 images")
    learning_rate: float = Field(1e-4, gt=0, description="AdamW's rate, constant")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (ours)")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient (ours)")
    rank: int = Field(4, ge=1, description="rank of LoRA")
    alpha: int = Field(4, ge=1, description="LoRA's update is multiplied by alpha / rank (ours)")
    targets: tuple[str, ...] = Field(
        ("to_q", "to_k", "to_v", "to_out.0"), min_length=1, description="layers of the U-Net that get LoRA (names ours)"
    )
    strict_frozen: bool = Field(
        False, description="the paper's letter: LoRA alone learns, and the mask's filters stay as they begin"
    )
    keep_rgb: bool = Field(
        True, description="of the two widened convolutions the mask's filters learn alone, not the colours' (ours)"
    )
    diffusion_weight: float = Field(1.0, ge=0, description="lambda 1, weight of the noise prediction")
    bce_weight: float = Field(1.0, ge=0, description="lambda 2, weight of the mask's cross-entropy")
    dice_weight: float = Field(1.0, ge=0, description="lambda 3, weight of the mask's Dice loss")
    dice_smoothing: float = Field(1.0, gt=0, description="epsilon of the Dice loss in pixels (ours)")
    flips: bool | None = Field(
        None, description="random flips, left-right and up-down; default only where prompts name no place (ours)"
    )
    rotation_degrees: float = Field(15.0, ge=0, le=180, description="largest random rotation (value ours)")
    scale: float = Field(0.1, ge=0, lt=1, description="random zoom by a factor in 1 +- scale (value ours)")
    colour: float = Field(
        0.1, ge=0, lt=1, description="random change of brightness, contrast, saturation by 1 +- colour (value ours)"
    )
    gradient_checkpointing: bool = Field(
        False, description="compute activations of U-Net and autoencoder again and save their memory"
    )
    vae_slicing: bool = Field(False, description="encode and decode one image at a time")
    snapshot_every: int = Field(1000, ge=0, description="steps between pictures of predicted pairs; 0 for none")
    snapshot_count: int = Field(8, ge=1, description="pairs in a picture")

    @model_validator(mode="after")
    def _captions_are_true(self) -> Self:
        if self.prompts == "captions" and self.flips:
            raise ValueError('flips = true contradicts prompts = "captions", which say where the lesion is')
        return self

    @property
    def mirrored(self) -> bool:
        """Whether images are flipped."""
        return self.prompts == "class" if self.flips is None else self.flips


class SkinDualGenTrainer(Trainer):
    """Fine-tunes a base by LoRA to draw an image and its mask together; leaves a small adapter.

    Learns from the images that have a mask and a label; others are left out.
    """

    name = "skindualgen"
    Config = SkinDualGenTrainerConfig

    def setup(self, context: Context) -> None:
        """Look the captioner up where there are captions; see :func:`captioning.check_captioner` for errors."""
        super().setup(context)
        if self.config.prompts == "captions":
            check_captioner(self.config.captioner, context)

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        """Train on the images of ``train`` that have a mask; ``val`` is not used."""
        from . import training

        training.train(self.config, train, output, self.context)


class SkinDualGenGeneratorConfig(SamplingSettings):
    """Settings of the generator ``skindualgen``; the defaults are the paper's where it names a value."""

    checkpoint: Checkpoint = Field(description="folder that trainer skindualgen wrote, or train:NAME")
    base: Checkpoint | None = Field(
        None, description="where the base lies that was adapted; default the name that training knew it by"
    )
    labels: Names = Field((), description="class or classes to draw; default an earlier stage's labels, else all")
    num_inference_steps: int = Field(45, ge=1, description="steps of the scheduler")
    guidance_scale: float = Field(1.22, ge=0, description="classifier-free guidance")
    threshold: float = Field(0.5, gt=0, lt=1, description="probability from which a pixel is lesion")


class SkinDualGenGenerator(Generator):
    """Draws an image and its mask from one prompt; fills images, masks, soft masks, labels and prompts.

    A case with a prompt is drawn from it. Any other gets the paper's template with its class, which ``labels``, an
    earlier stage, or a uniform draw from the case's seed decides, in this order.
    """

    name = "skindualgen"
    Config = SkinDualGenGeneratorConfig

    def setup(self, context: Context) -> None:
        """Load base and adapter; see :class:`generation.PairSampler` for errors."""
        super().setup(context)
        from .generation import PairSampler

        self._sampler = PairSampler(self.config, context)

    def generate(self, batch: Batch) -> Batch:
        """Fill images (N, 3, S, S), masks and soft_masks (N, 1, S, S), labels and prompts."""
        return self._sampler.fill(batch)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [SkinDualGenTrainer, SkinDualGenGenerator]
