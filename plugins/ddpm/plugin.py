"""EnhancedDDPM: makes dermoscopic images, and with them lesion masks in joint mode, from pure noise.

Paper: "EnhancedDDPM" (DDPM with dilated convolutions and self-attention for skin lesion synthesis); METHODS.md, part A.
No weights are published with it; the trainer makes them from your own images. Values that the paper leaves open are
ours, and say so in their descriptions.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal, Self

from pydantic import BeforeValidator, Field, ValidationInfo, field_validator, model_validator

from ...core.config import Checkpoint, PluginConfig
from ...core.errors import ConfigError
from ...core.hookspecs import hookimpl
from ...core.roles import Generator, Plugin, Trainer

if TYPE_CHECKING:
    from torch import Tensor

    from ...core.batch import Batch
    from ...core.context import Context
    from ...core.dataset import Dataset
    from ..diffusion.schedulers import ReverseProcess

Names = Annotated[tuple[str, ...], BeforeValidator(lambda value: (value,) if isinstance(value, str) else value)]


class DDPMTrainerConfig(PluginConfig):
    """Settings of the trainer ``ddpm``."""

    mode: Literal["image", "joint"] = Field(
        "image", description="image: RGB, the paper's; joint: RGB and mask as a fourth channel (ours)"
    )
    size: int = Field(128, ge=16, description="edge in pixels of the training images (ours)")
    width: int = Field(64, ge=8, multiple_of=8, description="channels of the first level (ours)")
    multipliers: tuple[int, ...] = Field((1, 2, 2, 2), min_length=2, description="channels per level, times width")
    blocks_per_level: int = Field(2, ge=1, description="ResBlocks per level of the encoder (ours)")
    dilations: tuple[int, int] = Field(
        (2, 4), description="rates of the two deepest levels (values ours); [1, 1] is the plain-convolution ablation"
    )
    attention_levels: tuple[int, ...] = Field(
        (2,), description="levels with attention in their ResBlocks, from 1 at full resolution (paper: 4.2)"
    )
    bottleneck_attention: bool = Field(True, description="attention at the bottleneck (paper: 3.1)")
    classes: bool = Field(False, description="learn the dataset's labels as conditions (ours)")
    label_dropout: float = Field(0.1, ge=0, le=1, description="share of labels hidden, for guidance (ours)")
    timesteps: int = Field(1000, ge=2, description="timesteps T of the forward process (ours)")
    beta_start: float = Field(1e-4, gt=0, lt=1, description="first of the linear betas (ours)")
    beta_end: float = Field(0.02, gt=0, lt=1, description="last of the linear betas (ours)")
    steps: int = Field(100_000, ge=1, description="optimisation steps (ours)")
    batch_size: int = Field(8, ge=1, description="images per step")
    learning_rate: float = Field(2e-4, gt=0, description="AdamW's base rate (ours)")
    weight_decay: float = Field(1e-2, ge=0, description="AdamW's weight decay (value ours)")
    warmup_steps: int = Field(0, ge=0, description="steps of linear warm-up before the cosine (ours)")
    clip_norm: float = Field(1.0, gt=0, description="largest norm of the gradient")
    ema_decay: float = Field(0.9999, ge=0, lt=1, description="decay of the averaged weights, warmed up; 0: none (ours)")
    flips: bool = Field(True, description="random flips, left-right and up-down")
    checkpoint_every: int = Field(1000, ge=1, description="steps between resume points")
    snapshot_every: int = Field(5000, ge=0, description="steps between sample grids; 0 for none")
    snapshot_count: int = Field(16, ge=1, description="samples in a grid")

    @field_validator("dilations")
    @classmethod
    def _reaches_pixels(cls, dilations: tuple[int, int], info: ValidationInfo) -> tuple[int, int]:
        if min(dilations) < 1:
            raise ValueError("a dilation is at least 1")
        if not {"size", "multipliers"} <= info.data.keys():
            return dilations
        levels = len(info.data["multipliers"])
        for level, rate in zip((levels - 1, levels), dilations, strict=True):
            edge = -(-info.data["size"] // 2 ** (level - 1))
            if rate >= edge and rate > 1:
                raise ValueError(
                    f"rate {rate} sees nothing but padding beside the centre on level {level}, where the map is {edge} "
                    f"pixels wide; take a rate below {edge} or a larger size"
                )
        return dilations

    @model_validator(mode="after")
    def _makes_a_network(self) -> Self:
        if self.beta_start > self.beta_end:
            raise ValueError(f"beta_start {self.beta_start} must not exceed beta_end {self.beta_end}")
        outside = [level for level in self.attention_levels if not 1 <= level <= len(self.multipliers)]
        if outside:
            raise ValueError(f"attention_levels go from 1 to {len(self.multipliers)}, not {outside[0]}")
        return self


class DDPMTrainer(Trainer):
    """Trains the noise-prediction U-Net; AdamW, cosine-annealed rate, clipped gradient, averaged weights."""

    name = "ddpm"
    Config = DDPMTrainerConfig

    def train(self, train: Dataset, val: Dataset | None, output: Path) -> None:
        """Train on all images of ``train`` (those with masks in joint mode); ``val`` is not used."""
        from . import training

        training.train(self.config, train, output, self.context)


class DDPMGeneratorConfig(PluginConfig):
    """Settings of the generator ``ddpm``."""

    checkpoint: Checkpoint = Field(description="finished output folder of trainer ddpm, or train:NAME")
    scheduler: Literal["ddpm", "ddim", "dpm-solver++", "sde-dpm-solver++"] = Field(
        "ddpm",
        description="ddpm: ancestral sampling, the paper's; the others need fewer steps. ddim and dpm-solver++ add no "
        "noise on the way and so leave visible noise where training was short; sde-dpm-solver++ does not",
    )
    num_inference_steps: int | None = Field(
        None, ge=1, description="network evaluations a case; default all timesteps for ddpm, 50 for ddim, else 25"
    )
    eta: float = Field(0.0, ge=0, le=1, description="share of noise in a ddim step")
    variance: Literal["posterior", "beta"] = Field(
        "posterior", description="sigma^2 of a ddpm step, which the paper leaves open (ours)"
    )
    clip_sample: bool = Field(True, description="clamp the predicted clean image at every step (ours)")
    guidance_scale: float = Field(1.0, ge=0, description="classifier-free guidance; 1 for none, needs classes")
    labels: Names = Field((), description="class or classes to make; default an earlier stage's labels, else all")

    @model_validator(mode="after")
    def _of_the_scheduler(self) -> Self:
        if self.eta and self.scheduler != "ddim":
            raise ValueError(f"eta belongs to scheduler ddim, not {self.scheduler}")
        if self.variance != "posterior" and self.scheduler != "ddpm":
            raise ValueError(f"variance belongs to scheduler ddpm, not {self.scheduler}")
        return self


class DDPMGenerator(Generator):
    """Draws images from a trained model; fills masks too if it was trained jointly, and labels if it knows classes.

    A class is drawn uniformly from the case's seed unless ``labels`` names one or an earlier stage has filled labels.
    """

    name = "ddpm"
    Config = DDPMGeneratorConfig

    def setup(self, context: Context) -> None:
        """Load the checkpoint.

        Raises:
            CheckpointError: there is none, or of another kind.
            ConfigError: the settings do not fit it.
        """
        super().setup(context)
        import torch

        from .checkpoint import load_checkpoint

        self._model = load_checkpoint(Path(self.config.checkpoint))
        self._check_settings()
        self._process()
        self._model.network.to(context.device, memory_format=torch.channels_last)  # type: ignore[call-overload]

    def generate(self, batch: Batch) -> Batch:
        """Fill images (N, 3, S, S), S the checkpoint's size; joint mode fills soft_masks, and masks by 0.5."""
        from .sampling import sample

        labels = self._labels(batch)
        classes = self._model.card.classes
        samples = sample(
            self._model.network,
            self._process(),
            batch.seeds,
            size=self._model.card.size,
            context=self.context,
            class_labels=None if labels is None else [classes.index(label) for label in labels],
            guidance_scale=self.config.guidance_scale,
            progress=lambda done, total: self.context.progress(done, total, {}),
        )
        return self._filled(batch, ((samples + 1) / 2).clamp(0, 1), labels)

    def _filled(self, batch: Batch, content: Tensor, labels: Sequence[str] | None) -> Batch:
        images = content[:, :3].contiguous()
        if content.shape[1] == 3:
            return batch.with_columns(images=images, labels=labels)
        soft_masks = content[:, 3:].contiguous()
        masks = (soft_masks >= 0.5).to(soft_masks.dtype)
        return batch.with_columns(images=images, masks=masks, soft_masks=soft_masks, labels=labels)

    def _process(self) -> ReverseProcess:
        from ..diffusion.schedulers import ReverseProcess

        settings: DDPMGeneratorConfig = self.config
        return ReverseProcess(
            self._model.schedule,
            settings.scheduler,
            settings.num_inference_steps,
            eta=settings.eta,
            variance=settings.variance,
            clip_sample=settings.clip_sample,
        )

    def _check_settings(self) -> None:
        settings, classes = self.config, self._model.card.classes
        if not classes and (settings.labels or settings.guidance_scale != 1.0):
            raise ConfigError(
                f"stage {self.context.name}: labels and guidance_scale need a checkpoint trained with classes=true; "
                f"{settings.checkpoint} was not"
            )
        self._known(settings.labels)

    def _known(self, labels: Sequence[str]) -> Sequence[str]:
        for label in labels:
            if label not in self._model.card.classes:
                raise ConfigError(
                    f"stage {self.context.name}: class {label!r} is unknown to {self.config.checkpoint}; "
                    f"it knows {', '.join(self._model.card.classes)}"
                )
        return labels

    def _labels(self, batch: Batch) -> Sequence[str] | None:
        """Return each case's class: from the settings, else from the batch, else drawn from the case's seed."""
        classes = self._model.card.classes
        if not classes:
            return None
        from ...kernels import seeded_uniform, stream_of

        choices = self.config.labels or classes
        draws = seeded_uniform(batch.seeds, (1,), stream=stream_of(f"{self.context.name}/labels"))[:, 0].tolist()
        drawn = [choices[int(draw * len(choices))] for draw in draws]
        if self.config.labels or batch.labels is None:
            return drawn
        given = [old or new for old, new in zip(batch.labels, drawn, strict=True)]
        return self._known(given)


@hookimpl
def register_plugins() -> list[type[Plugin]]:
    return [DDPMTrainer, DDPMGenerator]
