"""Trained weights from local files: found, read without running code from them, and fitted strictly."""

from __future__ import annotations

import importlib
import pickle
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
from safetensors import SafetensorError
from safetensors.torch import load_file

from ...core.durable import file_hash
from ...core.errors import CheckpointError, PluginError, first_line

if TYPE_CHECKING:
    from torch import Tensor, nn

SUFFIXES = (".safetensors", ".pth", ".pt", ".bin")
OFFLINE = 'extractor="segmenter" works offline with a checkpoint of the trainer "segmentation"'


def imported(module: str, extractor: str) -> Any:
    """Return an optional package's module.

    Raises:
        PluginError: the package is not installed or broken.
    """
    try:
        return importlib.import_module(module)
    except ImportError as error:
        package = module.partition(".")[0]
        raise PluginError(
            f'extractor {extractor} needs the package {package} ({error}); pip install "lesionforge[quality]"'
        ) from error


def find_weights(location: str | None, *, extractor: str, hub_names: Sequence[str] = (), how: str) -> Path:
    """Return the weights file at ``location``, or where that is None one of ``hub_names`` in torch hub's cache.

    Args:
        location: a file, or a folder that holds exactly one weights file.
        how: how to get the weights, for the error message.

    Raises:
        CheckpointError: there is none; never a reason to go on with a random network.
    """
    if location is None:
        cache = Path(torch.hub.get_dir(), "checkpoints")
        for name in hub_names:
            if (cache / name).is_file():
                return cache / name
        raise CheckpointError(f"extractor {extractor} has no weights: {how}; {OFFLINE}")
    path = Path(location)
    if path.is_file():
        return path
    if not path.is_dir():
        raise CheckpointError(f"extractor {extractor}: weights {path} do not exist: {how}; {OFFLINE}")
    files = sorted(file for file in path.iterdir() if file.suffix in SUFFIXES)
    if len(files) != 1:
        raise CheckpointError(f"extractor {extractor}: folder {path} holds {len(files)} weights files; name one file")
    return files[0]


def fingerprint(path: Path) -> str:
    """Return the first eight hexadecimal digits of the file's SHA-256, by which published weights are known."""
    return file_hash(path)[:8]


def load_state(path: Path) -> dict[str, Tensor]:
    """Return the named tensors of a .safetensors or a PyTorch file, the latter with ``weights_only=True``.

    Raises:
        CheckpointError: the file is damaged, needs code to be run, or holds something else.
    """
    try:
        if path.suffix == ".safetensors":
            content: Any = load_file(path)
        else:
            content = torch.load(path, map_location="cpu", weights_only=True)
    except (OSError, EOFError, RuntimeError, ValueError, KeyError, pickle.UnpicklingError, SafetensorError) as error:
        raise CheckpointError(f"weights {path} cannot be read as plain tensors: {first_line(error)}") from error
    for wrapper in ("state_dict", "model"):
        if isinstance(content, Mapping) and isinstance(content.get(wrapper), Mapping):
            content = content[wrapper]
    if not isinstance(content, Mapping) or not content or not all(map(torch.is_tensor, content.values())):
        raise CheckpointError(f"weights {path} are no table of named tensors (a state dict)")
    return {str(name).removeprefix("module."): tensor for name, tensor in content.items()}


def fit_state(network: nn.Module, state: Mapping[str, Tensor], path: Path, *, extractor: str) -> None:
    """Give ``network`` all of ``state`` and nothing else, so that no parameter stays random.

    Raises:
        CheckpointError: a tensor is missing, left over or of another shape.
    """
    try:
        network.load_state_dict(state, strict=True, assign=True)
    except RuntimeError as error:
        reason = " ".join(str(error).split())[:200]
        raise CheckpointError(f"weights {path} do not fit extractor {extractor}: {reason}") from error
    network.float().eval().requires_grad_(False)
