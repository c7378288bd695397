"""A trained segmentation network with all it needs to be used again, and the folder it is published in."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Self

import torch
from pydantic import ValidationError
from safetensors import SafetensorError
from safetensors.torch import load_file, save
from torch import Tensor, nn

from ...core.durable import write_bytes, write_text
from ...core.errors import CheckpointError, first_line
from .config import SegmenterInfo
from .models.registry import build_network

WEIGHTS_FILE = "model.safetensors"
INFO_FILE = "config.json"


class Segmenter(nn.Module):
    """A segmentation network that normalises its input itself.

    In training mode the logits of an auxiliary head, where the architecture has one, come as a second channel.

    Args:
        info: architecture and normalisation.
    """

    mean: Tensor
    std: Tensor

    def __init__(self, info: SegmenterInfo) -> None:
        super().__init__()
        self.network = build_network(info)
        self.register_buffer("mean", torch.tensor(info.mean).view(1, 3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(info.std).view(1, 3, 1, 1), persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        """Return (N, 1, H, W) logits for (N, 3, H, W) images in [0, 1]."""
        return self.network((images - self.mean) / self.std)

    def encode(self, images: Tensor) -> list[Tensor]:
        """Return the encoder's (N, C, h, w) maps, shallow to deep, for (N, 3, H, W) images in [0, 1]."""
        return self.network.encode((images - self.mean) / self.std)

    def on(self, device: torch.device) -> Self:
        """Move the network to ``device``, channels last, and return it."""
        return self.to(device).to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def save_segmenter(folder: Path, segmenter: Segmenter, info: SegmenterInfo) -> None:
    """Publish weights and configuration in ``folder``, each file whole or absent, the configuration last."""
    weights = {name: value.detach().cpu().contiguous() for name, value in segmenter.state_dict().items()}
    write_bytes(folder / WEIGHTS_FILE, save(weights))
    write_text(folder / INFO_FILE, info.model_dump_json(indent=2) + "\n")


def load_segmenter(path: str | Path) -> tuple[Segmenter, SegmenterInfo]:
    """Return the network published in the folder ``path``, on the CPU and in evaluation mode, and what it is.

    Raises:
        CheckpointError: the folder is missing or damaged, or holds another kind of checkpoint.
    """
    folder = Path(path)
    info = read_info(folder)
    weights = read_weights(folder / WEIGHTS_FILE)
    with torch.random.fork_rng(devices=[]):
        segmenter = Segmenter(info)
    _load_exactly(segmenter, weights, str(folder / WEIGHTS_FILE))
    return segmenter.eval(), info


def read_info(folder: Path) -> SegmenterInfo:
    """Return what the checkpoint in ``folder`` says about itself.

    Raises:
        CheckpointError: there is no such folder or it holds no segmentation checkpoint.
    """
    file = folder / INFO_FILE
    try:
        return SegmenterInfo.model_validate_json(file.read_bytes())
    except (FileNotFoundError, NotADirectoryError):
        raise CheckpointError(
            f"{folder} is no segmentation checkpoint: it has no {INFO_FILE}; give the folder that the trainer "
            "segmentation wrote"
        ) from None
    except ValidationError as error:
        problem = error.errors(include_url=False)[0]
        where = ".".join(map(str, problem["loc"])) or "content"
        raise CheckpointError(
            f"{file} does not describe a segmentation checkpoint: {where}: {problem['msg'].splitlines()[0]}"
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


def load_encoder(segmenter: Segmenter, file: Path) -> None:
    """Put pretrained weights, named as the encoder names them, into ``segmenter``; a classifier's head is left out.

    Raises:
        CheckpointError: the file cannot be read or belongs to another encoder.
    """
    heads = ("fc.", "classifier.", "head.", "last_linear.")
    weights = {name: value for name, value in read_weights(file).items() if not name.startswith(heads)}
    encoder = segmenter.network.encoder_module()
    # Files of torch before 0.4.1 lack the counters, which nothing reads while momentum is set.
    counters = {name: value for name, value in encoder.state_dict().items() if name.endswith("num_batches_tracked")}
    _load_exactly(encoder, {**counters, **weights}, str(file))


def _load_exactly(module: nn.Module, weights: dict[str, Tensor], where: str) -> None:
    expected = {name: value.shape for name, value in module.state_dict().items()}
    given = {name: value.shape for name, value in weights.items()}
    wrong = sorted(name for name in expected.keys() | given.keys() if expected.get(name) != given.get(name))
    if wrong:
        raise CheckpointError(
            f"{where} does not fit the network: {len(wrong)} of {len(expected)} tensors are missing, unexpected or of "
            f"another shape, first {wrong[0]}"
        )
    nn.Module.load_state_dict(module, weights)
