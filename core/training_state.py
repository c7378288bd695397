"""What an unfinished training keeps on disk so that it can be resumed exactly."""

from __future__ import annotations

import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from .durable import new_folder, remove_leftovers
from .errors import CheckpointError, first_line

STATE_FOLDER = "state"


@dataclass
class Progress:
    """What a resumed loop must know besides weights and optimizer.

    Attributes:
        step: optimisation steps done.
        history: logged rows.
        window, window_steps: sums of the losses since the last row, and of how many steps.
        best, since_best: best validation score, and validations since.
        stopped: True once early stopping has ended the training.
    """

    step: int = 0
    history: list[dict[str, float]] = field(default_factory=list)
    window: dict[str, Any] = field(default_factory=dict)
    window_steps: int = 0
    best: float | None = None
    since_best: int = 0
    stopped: bool = False


def save_state(
    folder: Path,
    progress: Progress,
    model: nn.Module,
    optimizer: torch.optim.Optimizer,
    *,
    averaged: list[Tensor] | None,
    best: dict[str, Tensor] | None,
) -> None:
    """Write one resume point into ``folder``, whole or not at all, then delete the older ones."""
    name = f"step-{progress.step:08d}"
    with new_folder(folder / name) as draft:
        save_file(weights_of(model), draft / "model.safetensors")
        if averaged is not None:
            numbered = {f"{number:06d}": tensor.contiguous() for number, tensor in enumerate(averaged)}
            save_file(numbered, draft / "averaged.safetensors")
        if best is not None:
            save_file(best, draft / "best.safetensors")
        window = {name: float(total) for name, total in progress.window.items()}
        resume = {"optimizer": optimizer.state_dict(), "progress": {**vars(progress), "window": window}}
        torch.save(resume, draft / "resume.pt")
    for older in folder.glob("step-*"):
        if older.name < name:
            shutil.rmtree(older)


def load_state(
    folder: Path, model: nn.Module, optimizer: torch.optim.Optimizer, *, averaged: list[Tensor] | None
) -> tuple[Progress, dict[str, Tensor] | None] | None:
    """Load the newest resume point into model, optimizer and ``averaged``.

    Returns:
        The progress and the best weights, if there are some; None where there is nothing to resume.

    Raises:
        CheckpointError: the files are damaged or of another configuration.
    """
    folder.mkdir(parents=True, exist_ok=True)
    remove_leftovers(folder)
    newest = max(folder.glob("step-*"), default=None)
    if newest is None:
        return None
    try:
        resume: dict[str, Any] = torch.load(newest / "resume.pt", map_location="cpu", weights_only=True)
        put_weights(model, load_file(newest / "model.safetensors"))
        optimizer.load_state_dict(resume["optimizer"])
        if averaged is not None:
            copy_into(averaged, [tensor for _, tensor in sorted(load_file(newest / "averaged.safetensors").items())])
        best = newest / "best.safetensors"
        return Progress(**resume["progress"]), load_file(best) if best.exists() else None
    except Exception as error:  # pickle, safetensors and torch each raise their own
        raise CheckpointError(
            f"cannot resume from {newest}: {first_line(error)}; the configuration changed or the files are damaged: "
            "delete the folder to start this training again"
        ) from error


@torch.no_grad()
def copy_into(targets: list[Any], values: list[Tensor]) -> None:
    """Copy ``values`` into the tensors ``targets``, pair by pair."""
    for target, value in zip(targets, values, strict=True):
        target.copy_(value)


def weights_of(model: nn.Module) -> dict[str, Tensor]:
    """Return a contiguous copy of all that training changes: parameters that are not frozen, and buffers."""
    learnt = _learnt(model)
    return {name: value.detach().clone(memory_format=torch.contiguous_format) for name, value in learnt.items()}


def put_weights(model: nn.Module, weights: dict[str, Tensor]) -> None:
    """Put what :func:`weights_of` returned back into ``model``.

    Raises:
        RuntimeError: they are of another model, or of one in which something else is frozen.
    """
    if weights.keys() != _learnt(model).keys():
        raise RuntimeError("it holds other weights than the model learns")
    model.load_state_dict(weights, strict=False)


def _learnt(model: nn.Module) -> dict[str, Tensor]:
    # One parameter may stand under several names.
    frozen = {name for name, value in model.named_parameters(remove_duplicate=False) if not value.requires_grad}
    return {name: value for name, value in model.state_dict().items() if name not in frozen}
