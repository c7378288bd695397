"""A trained network in a folder: its weights, and what it is; and weights of others from local files."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import TypeVar

import torch
from pydantic import BaseModel, ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ...core.durable import file_hash, write_bytes, write_text
from ...core.errors import CheckpointError, first_line

WEIGHTS_FILE = "model.safetensors"
INFO_FILE = "config.json"

Info = TypeVar("Info", bound=BaseModel)


def save_checkpoint(folder: Path, network: nn.Module, info: BaseModel) -> None:
    """Publish weights and configuration in ``folder``, each file whole or absent, the configuration last."""
    weights = {name: value.detach().cpu().contiguous() for name, value in network.state_dict().items()}
    write_bytes(folder / WEIGHTS_FILE, save(weights))
    write_text(folder / INFO_FILE, info.model_dump_json(indent=2) + "\n")


def read_info(folder: Path, model: type[Info], *, trainer: str) -> Info:
    """Return what the checkpoint in ``folder`` says about itself.

    Raises:
        CheckpointError: there is no such folder or it holds no checkpoint of ``trainer``.
    """
    file = folder / INFO_FILE
    try:
        return model.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder} is no {trainer} checkpoint: it has no {INFO_FILE}; give the folder that the trainer "
            f"{trainer} wrote"
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "content"
        raise CheckpointError(
            f"{file} does not describe a {trainer} checkpoint: {where}: {problem['msg'].splitlines()[0]}"
        ) from None
    except OSError as error:
        raise CheckpointError(f"cannot read {file}: {error.strerror}") from error


def read_weights(file: Path) -> dict[str, Tensor]:
    """Return the tensors in a .safetensors file, or in a .pth or .pt file without running code in it.

    Raises:
        CheckpointError: the file is missing, damaged or no table of tensors.
    """
    if not file.is_file():
        raise CheckpointError(f"weights file {file} does not exist")
    try:
        if file.suffix == ".safetensors":
            return load_file(file)
        table = torch.load(file, map_location="cpu", weights_only=True)
    except (SafetensorError, pickle.UnpicklingError, RuntimeError, EOFError, OSError, ValueError) as error:
        raise CheckpointError(f"weights file {file} is damaged or of another kind: {first_line(error)}") from error
    if not isinstance(table, dict) or not all(isinstance(value, Tensor) for value in table.values()):
        raise CheckpointError(f"weights file {file} holds no table of tensors; save the network's state_dict()")
    return table


def weights_hash(folder: str) -> str:
    """Return the first eight hexadecimal digits of the SHA-256 of the weights in ``folder``."""
    return file_hash(Path(folder, WEIGHTS_FILE))[:8]


def load_exactly(module: nn.Module, weights: dict[str, Tensor], *, where: str) -> None:
    """Put ``weights`` into ``module``, all of them and nothing else.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    expected = {name: value.shape for name, value in module.state_dict().items()}
    given = {name: value.shape for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    if wrong:
        raise CheckpointError(
            f"{where} does not fit the network: {len(wrong)} of {len(expected)} tensors are missing, unexpected or of "
            f"another shape, first {wrong[0]}"
        )
    nn.Module.load_state_dict(module, weights)


def load_pretrained(module: nn.Module, weights: dict[str, Tensor], *, where: str, head: tuple[str, ...] = ()) -> None:
    """Put ``weights`` into ``module``, all but what stands below the names ``head``, which stays as it is.

    Files of torch before 0.4.1 lack the counters of batch norm, which nothing reads while momentum is set.

    Raises:
        CheckpointError: the weights are of another network.
    """
    own = module.state_dict()
    kept = {name: value for name, value in own.items() if name.startswith(head)}
    counters = {name: value for name, value in own.items() if name.endswith("num_batches_tracked")}
    body = {name: value for name, value in weights.items() if not name.startswith(head)}
    load_exactly(module, {**counters, **body, **kept}, where=where)
