"""Training of the noise-prediction network (paper, sections 3.1 and 4.2)."""

from __future__ import annotations

import io
import math
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import torch
from PIL import Image
from torch import Tensor, nn

from ...core.context import Context
from ...core.dataset import Dataset
from ...core.durable import write_bytes
from ...core.errors import DataError, StoreError
from ...core.seeding import case_seed, name_seed
from ...core.training import Snapshot, TrainingLoop, cosine_rate
from ..diffusion.schedule import NoiseSchedule
from ..diffusion.schedulers import ReverseProcess
from .checkpoint import ModelCard, TrainedModel, save_checkpoint
from .sampling import sample
from .unet import DilatedUNet2D

if TYPE_CHECKING:
    from .plugin import DDPMTrainerConfig

SNAPSHOT_STEPS = 50
GAP = 2


def train(config: DDPMTrainerConfig, dataset: Dataset, output: Path, context: Context) -> None:
    """Train as ``config`` says on ``dataset`` and leave the checkpoint, curves and sample grids in ``output``.

    Raises:
        DataError: masks or labels are asked for and the dataset has none.
    """
    data = TrainingData(dataset, joint=config.mode == "joint", classes=config.classes, size=config.size)
    network = fresh_network(config, len(data.classes), context)
    schedule = NoiseSchedule(config.timesteps, config.beta_start, config.beta_end)
    rate, decay = config.learning_rate, config.weight_decay
    optimizer = torch.optim.AdamW(network.parameters(), lr=rate, weight_decay=decay, fused=True)
    loop = TrainingLoop(
        model=network,
        optimizer=optimizer,
        output=output,
        context=context,
        steps=config.steps,
        batch_size=config.batch_size,
        examples=len(data),
        rate=cosine_rate(config.steps, config.warmup_steps),
        clip_norm=config.clip_norm,
        ema_decay=config.ema_decay or None,
        checkpoint_every=config.checkpoint_every,
    )

    def losses(rows: list[int], step: int) -> Mapping[str, Tensor]:
        clean = data.pixels(rows, loop.device)
        if config.flips:
            clean = randomly_flipped(clean)
        labels = data.labels(rows, loop.device, dropout=config.label_dropout)
        return noise_prediction_losses(loop.network, schedule, clean, labels)

    snapshot = None
    if config.snapshot_every:
        grids = _SampleGrids(schedule, data, config.size, config.snapshot_count, output / "samples", context)
        snapshot = Snapshot(config.snapshot_every, grids.take)
    loop.run(losses, snapshot=snapshot)
    card = ModelCard(config.mode, config.size, data.classes, dataset.name, dataset.phantom)
    save_checkpoint(TrainedModel(network, schedule, card), output)


class TrainingData:
    """Images, and masks and class numbers where they are learnt, as the network sees them.

    Attributes:
        classes: class names in the order of their numbers; empty where no classes are learnt.
    """

    def __init__(self, dataset: Dataset, *, joint: bool, classes: bool, size: int) -> None:
        self._dataset = (dataset.with_masks() if joint else dataset).resized(size)
        self._joint = joint
        self.classes = self._dataset.classes if classes else ()
        if classes and not self.classes:
            raise DataError(f"dataset {dataset.name} has no labels, which classes=true needs")

    def __len__(self) -> int:
        return len(self._dataset)

    def pixels(self, rows: list[int], device: torch.device) -> Tensor:
        """Return (N, 3, size, size) fp32 in [-1, 1], with the mask as fourth channel (-1 skin, 1 lesion) if joint."""
        pixels = self._dataset.images_array(rows)
        if self._joint:
            masks = self._dataset.masks_array(rows)[..., None] * np.uint8(255)
            pixels = np.concatenate((pixels, masks), axis=-1)
        # Kept channels-last: permuting is free and the network wants it so.
        return torch.from_numpy(pixels).to(device).permute(0, 3, 1, 2).float() / 127.5 - 1

    def labels(self, rows: list[int], device: torch.device, *, dropout: float) -> Tensor | None:
        """Return (N,) class numbers, or None where no classes are learnt.

        A case without label, and any case with probability ``dropout``, has the number of "no class", which comes last.
        """
        if not self.classes:
            return None
        none = len(self.classes)
        names = [self._dataset.records[row].label for row in rows]
        numbers = torch.tensor([none if name is None else self.classes.index(name) for name in names])
        return torch.where(torch.rand(len(rows)) < dropout, none, numbers).to(device)


def fresh_network(config: DDPMTrainerConfig, num_classes: int, context: Context) -> DilatedUNet2D:
    """Return a network whose first weights depend on the seed alone: the dilated and the plain one begin alike."""
    channels = 4 if config.mode == "joint" else 3
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(name_seed(str(context.seed), "weights") >> 1)
        return DilatedUNet2D(
            sample_size=config.size,
            in_channels=channels,
            out_channels=channels,
            width=config.width,
            multipliers=config.multipliers,
            blocks_per_level=config.blocks_per_level,
            dilations=config.dilations,
            attention_levels=config.attention_levels,
            bottleneck_attention=config.bottleneck_attention,
            num_classes=num_classes,
        )


def noise_prediction_losses(
    network: nn.Module, schedule: NoiseSchedule, clean: Tensor, class_labels: Tensor | None
) -> dict[str, Tensor]:
    """Return E ||eps - eps_theta(x_t, t)||^2, a mean over cases and values (paper, 3.1; Ho et al. 2020, eq. 14).

    Draws t uniformly and eps from torch's random state; x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps in fp32. With
    four channels the image's and the mask's shares are returned beside ``loss``, which is the mean over all four.
    """
    timesteps = torch.randint(schedule.timesteps, (len(clean),), device=clean.device)
    noise = torch.randn_like(clean)
    noisy = schedule.noised(clean, noise, timesteps)
    predicted = network(noisy, timesteps, class_labels).sample.float()
    errors = (predicted - noise).square().mean(dim=(0, 2, 3))
    if len(errors) == 3:
        return {"loss": errors.mean()}
    return {"loss": errors.mean(), "image_loss": errors[:3].mean().detach(), "mask_loss": errors[3].detach()}


def randomly_flipped(images: Tensor) -> Tensor:
    """Flip each of (N, C, H, W) left-right and up-down, each with probability 1/2."""
    for axis in (2, 3):
        chosen = (torch.rand(len(images)) < 0.5).to(images.device)
        images = torch.where(chosen[:, None, None, None], images.flip(axis), images)
    return images


class _SampleGrids:
    """Draws the same seeds again and again while the network learns (50 ancestral steps)."""

    def __init__(
        self, schedule: NoiseSchedule, data: TrainingData, size: int, count: int, folder: Path, context: Context
    ) -> None:
        self._schedule, self._size, self._folder, self._context = schedule, size, folder, context
        self._seeds = [case_seed(context.seed, index) for index in range(count)]
        self._labels = [index % len(data.classes) for index in range(count)] if data.classes else None

    def take(self, network: nn.Module, step: int) -> None:
        assert isinstance(network, DilatedUNet2D)
        process = ReverseProcess(self._schedule, "ddpm", min(SNAPSHOT_STEPS, self._schedule.timesteps))
        samples = sample(
            network, process, self._seeds, size=self._size, context=self._context, class_labels=self._labels
        )
        try:
            self._folder.mkdir(exist_ok=True)
        except OSError as error:
            raise StoreError(f"cannot write {self._folder}: {error.strerror}") from error
        picture = io.BytesIO()
        Image.fromarray(sample_grid(samples)).save(picture, "PNG")
        write_bytes(self._folder / f"step-{step:06d}.png", picture.getvalue())


def sample_grid(samples: Tensor) -> np.ndarray:
    """Return samples (N, 3 or 4, H, W) in [-1, 1] as one uint8 RGB picture, masks in a row below their images."""
    pixels = ((samples.clamp(-1, 1) + 1) * 127.5).round().to(torch.uint8).cpu()
    columns = math.ceil(math.sqrt(len(pixels)))
    rows = []
    for start in range(0, len(pixels), columns):
        part = pixels[start : start + columns]
        rows.append(part[:, :3])
        if part.shape[1] == 4:
            rows.append(part[:, 3:].expand(-1, 3, -1, -1))
    height, width = pixels.shape[2] + GAP, pixels.shape[3] + GAP
    grid = np.full((len(rows) * height - GAP, columns * width - GAP, 3), 255, dtype=np.uint8)
    for i, row in enumerate(rows):
        for j, tile in enumerate(row):
            grid[i * height : (i + 1) * height - GAP, j * width : (j + 1) * width - GAP] = tile.permute(1, 2, 0).numpy()
    return grid
