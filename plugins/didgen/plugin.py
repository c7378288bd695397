"""DiDGen: one fine-tuned Stable Diffusion for images by text, and for image-mask pairs by layout guidance.

Paper: Shentu, Watson and Al Moubayed, "DiDGen: Diffusion-based Dual-task Synthesis for Dermoscopic Data Generation",
MICCAI; METHODS.md, part D. ``compat`` chooses between the paper's definitions and those of its released code. No
weights are published with it; the base model is yours to choose and has a licence of its own. Values that the paper
leaves open are ours, and say so in their descriptions.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Literal, Self

from pydantic import Field, field_validator, model_validator

from ...core.config import Checkpoint, PluginConfig
from ...core.errors import PluginError
from ...core.hookspecs import hookimpl
from ...core.roles import Annotator, Generator, Plugin, Trainer
from ..stable_diffusion.captioning import CaptionerName, check_captioner
from ..stable_diffusion.settings import SamplingSettings, Scheduler, TuningSettings

if TYPE_CHECKING:

    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset


Compat = Literal["paper", "reference"]
COMPAT = "the paper's definitions, or the behaviour of its released code"


class DiDGenTrainerConfig(TuningSettings):
    """Settings of the trainer ``didgen``; the defaults are the paper's where it names a value."""

    captioner: CaptionerName = Field(
        "derm-prompt", description="chain of annotators that writes the captions; empty: those of the data"
    )
    warmup_steps: int = Field(500, ge=0, description="steps of linear warm-up (released code)")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (released code)")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient (released code)")
    region_weight: float = Field(0.1, ge=0, description="alpha, weight of L_attn; 0 is the ablation without it")
    prefix_share: float = Field(0.2, ge=0, le=1, description="share of prompts that are the prefix alone")
    cross_factor: int = Field(
        4, ge=1, description="latents per map pixel along an edge, where L_attn is taken: 4 is 16 x 16 at 512 px"
    )
    lora_rank: int = Field(0, ge=0, description="rank of LoRA on the attention projections; 0: the whole U-Net")
    ema_decay: float = Field(0.0, ge=0, lt=1, description="decay of the averaged weights, warmed up; 0: none")
    compat: Compat = Field("paper", description=COMPAT)
    snapshot_every: int = Field(1000, ge=0, description="steps between pictures of the maps; 0 for none")
    snapshot_count: int = Field(8, ge=1, description="images in a picture of the maps")


class DiDGenTrainer(Trainer):
    """Fine-tunes a Stable Diffusion base and ties two tokens' attention to lesion and skin; leaves a diffusers folder.

    Images without a mask teach the noise prediction alone.
    """

    name = "didgen"
    Config = DiDGenTrainerConfig

    def setup(self, context: Context) -> None:
        """Look the captioner up; see :func:`captioning.check_captioner` for errors."""
        super().setup(context)
        check_captioner(self.config.captioner, context)

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        """Train on all images of ``train``; ``val`` is not used."""
        from . import training

        training.train(self.config, train, output, self.context)


class DiDGenGeneratorConfig(SamplingSettings):
    """Settings of the generator ``didgen``; the defaults are the paper's where it names a value."""

    checkpoint: Checkpoint = Field(description="folder that trainer didgen wrote, or train:NAME")
    scheduler: Scheduler = Field("ddim", description="way from noise to image (ours; the released code takes pndm)")
    num_inference_steps: int = Field(50, ge=2, description="steps of the scheduler")
    layout_loss: Literal["didgen", "zest-guide", "attention-refocusing"] = Field(
        "didgen", description="what layout guidance descends: the paper's, or a baseline's"
    )
    layout_rate: float = Field(20.0, ge=0, description="eta, factor on the layout loss's gradient")
    guided_share: float = Field(0.5, ge=0, le=1, description="share of the steps, from the first, with layout guidance")
    use_cross: bool = Field(True, description="L_CA in didgen's loss; false is the ablation without it")
    use_self: bool = Field(True, description="L_SA in didgen's loss; false is the ablation without it")
    two_sided: bool = Field(True, description="L_SA's skin term, which the paper has and the released code has not")
    cross_factor: int = Field(4, ge=1, description="latents per pixel of the cross-attention maps, along an edge")
    self_factor: int = Field(
        2, ge=1, description="latents per pixel of the self-attention maps, along an edge; 1 for maps of 64 x 64"
    )
    tau: int = Field(4, ge=0, le=64, description="power of the self-attention in the soft mask")
    compat: Compat = Field("paper", description=COMPAT)
    compile: bool = Field(
        False, description="compile the U-Net but for guidance; worth it for hundreds of cases, slow for a few"
    )

    @model_validator(mode="after")
    def _terms_are_didgens(self) -> Self:
        if self.layout_loss != "didgen" and not (self.use_cross and self.use_self and self.two_sided):
            raise ValueError(f"use_cross, use_self and two_sided are parts of didgen's loss, not of {self.layout_loss}")
        if self.layout_loss == "didgen" and not (self.use_cross or self.use_self) and self.guided_share:
            raise ValueError("layout guidance needs use_cross or use_self; for none set guided_share to 0")
        return self


class DiDGenGenerator(Generator):
    """Draws images from prompts, guided into the layout of masks where there are some; fills images and soft masks.

    A case without a prompt gets the paper's prefix alone. Soft masks are A_CS at the self-attention's resolution;
    annotator ``attention-mask`` makes masks of them. Score ``layout_loss`` is the loss before the last guided step.
    """

    name = "didgen"
    Config = DiDGenGeneratorConfig

    def setup(self, context: Context) -> None:
        """Load the checkpoint; see :class:`generation.PairSampler` for errors."""
        super().setup(context)
        from .generation import PairSampler

        self._sampler = PairSampler(self.config, context)

    def generate(self, batch: Batch) -> Batch:
        """Fill images (N, 3, S, S), soft_masks (N, 1, E, E) and prompts."""
        return self._sampler.fill(batch)


class AttentionMask(Annotator):
    """Masks from a generator's attention maps: Otsu's threshold, then closing (paper, section 2.4).

    Scores: ``mask_uncertainty``, the share of the soft mask's variance that remains within the mask and outside of it
    (ours), and ``condition_iou``, the overlap with the mask that the generator was given, where it was given one.
    """

    name = "attention-mask"

    class Config(PluginConfig):
        compat: Compat = Field("paper", description=COMPAT)
        closing: int | None = Field(
            None,
            ge=0,
            description="width in pixels of the ellipse that fills small holes, odd; 0: none; default 5 (size ours), "
            "with compat = 'reference' none",
        )
        largest_component: bool | None = Field(
            None, description="keep the largest connected piece alone; default true (ours), with 'reference' false"
        )
        smoothing: float = Field(
            0.0, ge=0, le=1000, description="standard deviation in pixels of a Gaussian before the threshold (ours)"
        )

        @field_validator("closing")
        @classmethod
        def _odd(cls, closing: int | None) -> int | None:
            if closing and closing % 2 == 0:
                raise ValueError("an ellipse around a pixel is odd pixels wide; take an odd number or 0")
            return closing

    def annotate(self, batch: Batch) -> Batch:
        """Fill masks at the images' size from soft_masks of any size.

        Raises:
            PluginError: there are no images or no soft masks, or images are not square.
        """
        from ...kernels import extract_masks
        from .maps import iou, otsu_uncertainty, released_levels, resized

        batch.require("images", "soft_masks", stage=self.context.name or self.name)
        assert batch.images is not None and batch.soft_masks is not None
        height, size = batch.images.shape[2:]
        if height != size:
            raise PluginError(f"stage {self.context.name}: images of {height} x {size} pixels where squares are needed")
        config, released = self.config, self.config.compat == "reference"
        maps = released_levels(batch.soft_masks, size) if released else batch.soft_masks
        masks = extract_masks(
            maps,
            size,
            closing=(0 if released else 5) if config.closing is None else config.closing,
            largest_component=not released if config.largest_component is None else config.largest_component,
            smoothing=config.smoothing,
        )
        scores = {"mask_uncertainty": otsu_uncertainty(resized(maps, size), masks)}
        if batch.masks is not None:
            scores["condition_iou"] = iou(masks, batch.masks)
        return batch.with_columns(masks=masks, scores=scores)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [DiDGenTrainer, DiDGenGenerator, AttentionMask]
