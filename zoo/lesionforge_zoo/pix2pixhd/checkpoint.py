"""The folder of a trained generator: ``generator.safetensors`` and ``config.json``."""

from __future__ import annotations

from pathlib import Path

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import nn

import lesionforge as lf

from .config import ModelCard
from .network import build_generator

WEIGHTS, CARD = "generator.safetensors", "config.json"


def save_checkpoint(generator: nn.Module, card: ModelCard, folder: Path) -> None:
    """Publish the generator in ``folder``; ``config.json`` comes last and marks it as complete."""
    weights = {name: value.detach().cpu().contiguous() for name, value in generator.state_dict().items()}
    lf.write_bytes(folder / WEIGHTS, save(weights))
    lf.write_text(folder / CARD, card.model_dump_json(indent=2) + "\n")


def load_checkpoint(folder: Path) -> tuple[nn.Module, ModelCard]:
    """Return what :func:`save_checkpoint` wrote, in evaluation mode on the CPU.

    Raises:
        CheckpointError: the folder is missing, of another kind, or damaged.
    """
    card = read_card(folder)
    with torch.random.fork_rng(devices=[]):
        generator = build_generator(card, len(card.classes))
    damaged = f"pix2pixhd checkpoint {folder} is damaged"
    try:
        generator.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, OSError) as error:
        raise lf.CheckpointError(f"{damaged}: {WEIGHTS}: {error}; train it again") from error
    except RuntimeError as error:
        raise lf.CheckpointError(f"{damaged}: {WEIGHTS} does not fit {CARD}; train it again") from error
    return generator.requires_grad_(False).eval(), card


def read_card(folder: Path) -> ModelCard:
    """Return what the checkpoint says about itself; see :func:`load_checkpoint` for errors."""
    file = folder / CARD
    try:
        return ModelCard.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise lf.CheckpointError(
            f"no pix2pixhd checkpoint at {folder}: there is no {CARD}; give the finished output folder of trainer "
            "pix2pixhd"
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "content"
        raise lf.CheckpointError(f"{file} describes no pix2pixhd checkpoint: {where}: {problem['msg']}") from None
    except OSError as error:
        raise lf.CheckpointError(f"cannot read {file}: {error.strerror}") from error
