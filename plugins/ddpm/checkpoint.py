"""The folder of a trained model: ``unet/`` and ``scheduler/`` as diffusers writes them, and ``config.json``."""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

from diffusers.schedulers.scheduling_ddpm import DDPMScheduler
from diffusers.schedulers.scheduling_utils import SCHEDULER_CONFIG_NAME

from ...core.durable import new_folder, write_text
from ...core.errors import CheckpointError, first_line
from ..diffusion.schedule import NoiseSchedule
from .unet import DilatedUNet2D

KIND = "ddpm"
Mode = Literal["image", "joint"]


@dataclass(frozen=True)
class ModelCard:
    """What a sampler must know besides weights and betas.

    Attributes:
        mode: ``image`` for RGB, ``joint`` for RGB and mask in a fourth channel.
        size: edge in pixels of the training images.
        classes: class names in the order of their numbers; empty for an unconditional model.
        dataset: name of the training data.
        phantom: True where procedural phantoms were among the training data.
    """

    mode: Mode
    size: int
    classes: tuple[str, ...]
    dataset: str
    phantom: bool


@dataclass(frozen=True)
class TrainedModel:
    """A finished checkpoint."""

    network: DilatedUNet2D
    schedule: NoiseSchedule
    card: ModelCard


def save_checkpoint(model: TrainedModel, folder: Path) -> None:
    """Write ``model`` into ``folder``; ``config.json`` comes last and marks it as complete."""
    with new_folder(folder / "unet") as draft:
        model.network.save_pretrained(draft, safe_serialization=True)
    with new_folder(folder / "scheduler") as draft:
        betas = model.schedule
        DDPMScheduler(betas.timesteps, betas.beta_start, betas.beta_end).save_pretrained(draft)
    write_text(folder / "config.json", json.dumps({"kind": KIND, **asdict(model.card)}, indent=2) + "\n")


def load_checkpoint(folder: Path) -> TrainedModel:
    """Load what :func:`save_checkpoint` wrote, from local files only, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the folder is missing, of another kind, or damaged.
    """
    card = _read_card(folder)
    try:
        network = DilatedUNet2D.from_pretrained(folder / "unet", local_files_only=True, use_safetensors=True)
        betas = json.loads((folder / "scheduler" / SCHEDULER_CONFIG_NAME).read_text(encoding="utf-8"))
        schedule = NoiseSchedule.from_config(betas)
    except (OSError, ValueError, KeyError, RuntimeError, TypeError) as error:
        raise CheckpointError(f"ddpm checkpoint {folder} is damaged: {first_line(error)}; train it again") from error
    channels = {"image": 3, "joint": 4}[card.mode]
    if network.config["in_channels"] != channels or network.config["num_classes"] != len(card.classes):
        raise CheckpointError(f"ddpm checkpoint {folder}: unet/ and config.json disagree on channels or classes")
    return TrainedModel(network.eval(), schedule, card)


def _read_card(folder: Path) -> ModelCard:
    path = folder / "config.json"
    if not path.is_file():
        raise CheckpointError(
            f"no ddpm checkpoint at {folder}: there is no config.json; give the finished output folder of trainer ddpm"
        )
    try:
        values: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        kind = values.pop("kind", None)
        if kind != KIND:
            raise CheckpointError(f"{folder} holds a checkpoint of kind {kind!r}, not {KIND!r}")
        card = ModelCard(**{**values, "classes": tuple(values["classes"])})
        if card.mode not in ("image", "joint"):
            raise ValueError(f"mode is {card.mode!r}")
    except (OSError, ValueError, KeyError, TypeError, AttributeError) as error:
        raise CheckpointError(f"ddpm checkpoint {folder}: config.json is damaged: {first_line(error)}") from error
    return card
