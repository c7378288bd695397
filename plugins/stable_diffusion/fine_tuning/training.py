"""The base's own loss on images and their prompts, and DreamBooth's on the prior beside it."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

from ....core.context import Context
from ....core.dataset import Dataset
from ....core.errors import DataError
from ....core.training import Snapshot
from ..adaptation import save_learnt, trainable_unet, tuning_loop
from ..base import StableDiffusionBase, load_base
from ..kept import kept_captions, kept_latents
from ..latents import PosteriorLatents
from ..prompts import PromptEncoder
from ..samples import SampleSheets
from ..sampling import latent_size
from .prior import Prior, kept_prior, prior_prompts
from .wording import labelled

if TYPE_CHECKING:
    from .plugin import FineTuningConfig

GUIDANCE_SCALE = 7.5


def train(config: FineTuningConfig, dataset: Dataset, output: Path, context: Context) -> None:
    """Fine-tune as ``config`` says and leave a diffusers folder, curves and pictures of samples in ``output``.

    Raises:
        CheckpointError: the base cannot be used.
        ConfigError: the size does not fit it.
        DataError: an image has no caption, or no label where prompts name one.
    """
    base = load_base(config.base)
    latent_size(base, config.size)
    named = prior_prompts(config, dataset.classes) if config.prior_prompt else []
    examples = prepared_examples(base, dataset, config, context, output)
    base.to(context.device)
    prior = kept_prior(base, config, named, context, output) if named else None
    network = trainable_unet(
        base,
        lora_rank=config.lora_rank,
        gradient_checkpointing=config.gradient_checkpointing,
        seed=context.seed,
    )
    loop = tuning_loop(
        config,
        network,
        examples=len(examples.prompts),
        output=output,
        context=context,
        warmup_steps=config.warmup_steps,
        ema_decay=config.ema_decay,
    )
    tuning = FineTuning(base, examples, prior, config, loop.device)
    sheets = SampleSheets(
        lambda network: base,  # which the network lies in
        examples.prompts,
        context,
        output / "samples",
        count=config.snapshot_count,
        size=config.size,
        guidance_scale=GUIDANCE_SCALE,
    )
    loop.run(
        lambda rows, step: tuning.losses(loop.network, rows),
        snapshot=Snapshot(config.snapshot_every, sheets.take) if config.snapshot_every else None,
    )
    save_learnt(base, network, config.size, output)


@dataclass(frozen=True)
class Examples:
    """Everything that fine-tuning learns from, on the CPU: images as latents, and one prompt an image."""

    latents: PosteriorLatents
    prompts: list[str]


def prepared_examples(
    base: StableDiffusionBase, dataset: Dataset, config: FineTuningConfig, context: Context, output: Path
) -> Examples:
    """Name or caption the images, and encode them once; nothing is mirrored, since captions tell places."""
    dataset = dataset.resized(config.size)
    prompts = _named(dataset, config.prompt) if config.prompt else None
    if prompts is None:
        prompts = kept_captions(dataset, config.captioner, context, output)
    return Examples(kept_latents(base, dataset, context, output), prompts)


def _named(dataset: Dataset, prompt: str) -> list[str]:
    found = []
    for record in dataset.records:
        named = labelled(prompt, record.label)
        if named is None:
            raise DataError(f"dataset {dataset.name}: image {record.image_id!r} has no label, and the prompt names it")
        found.append(named)
    return found


class FineTuning:
    """The losses of one step: the squared error of what the U-Net predicts, of images and of the prior.

    With a prior L = L_images + lambda L_prior (Ruiz et al. 2023, equation 2), in the base's own prediction type and
    not of the clean image (ours, as is usual with Stable Diffusion).
    """

    def __init__(
        self,
        base: StableDiffusionBase,
        examples: Examples,
        prior: Prior | None,
        config: FineTuningConfig,
        device: torch.device,
    ) -> None:
        self.base, self.examples, self.prior, self.config, self.device = base, examples, prior, config, device
        self._encode = PromptEncoder(base)

    def losses(self, network: nn.Module, rows: list[int]) -> Mapping[str, Tensor]:
        """Return ``loss``, with a prior also its terms, of a batch, drawn by torch's random state; t is uniform.

        An image's prompt is left empty with probability ``prompt_dropout``; the prior's never is.
        """
        empty = (torch.rand(len(rows)) < self.config.prompt_dropout).tolist()
        prompts = ["" if drop else self.examples.prompts[row] for drop, row in zip(empty, rows, strict=True)]
        clean = self.examples.latents.drawn(rows, self.device)
        if self.prior is None:
            return {"loss": self._errors(network, clean, prompts).mean()}
        latents, named = self.prior.drawn(len(rows), self.device)
        errors = self._errors(network, torch.cat((clean, latents)), [*prompts, *named])
        images, prior = errors[: len(rows)].mean(), errors[len(rows) :].mean()
        return {"loss": images + self.config.prior_weight * prior, "images": images, "prior": prior}

    def _errors(self, network: nn.Module, clean: Tensor, prompts: Sequence[str]) -> Tensor:
        """Return (B,) mean squared errors of the predictions for clean latents (B, 4, h, w), noised."""
        schedule = self.base.schedule
        noise = torch.randn(clean.shape).to(clean)
        timesteps = torch.randint(schedule.timesteps, (len(clean),)).to(self.device)
        with torch.no_grad():
            states = self._encode(prompts).states
        predicted = network(schedule.noised(clean, noise, timesteps), timesteps, states, return_dict=False)[0]
        return (predicted.float() - schedule.target(clean, noise, timesteps)).square().mean((1, 2, 3))
