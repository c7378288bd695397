"""The CUDA kernels (kernels/csrc/cuda), a library with a C interface that is loaded on first use.

Memory and streams are torch's: a call runs on the current stream of its tensors' device and waits for nothing.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from ctypes import c_char_p, c_int, c_int64, c_uint32, c_void_p
from functools import cache
from pathlib import Path

import torch
from torch import Tensor

NAME = "lesionforge_cuda.dll" if os.name == "nt" else "liblesionforge_cuda.so"
CAPABILITY = (8, 0)

# Parameters of each function; every one but the workspaces also takes device and stream, and gives an error code.
_NOISE = (c_void_p, c_void_p, c_int64, c_int64, c_uint32, c_uint32)
_LAUNCHES = {
    "philox_u32": (c_void_p, c_void_p, c_void_p, c_int64),
    "seeded_normal": _NOISE,
    "seeded_uniform": _NOISE,
    "otsu_threshold": (c_void_p, c_void_p, c_int, c_int64, c_int, c_int, c_int, c_void_p),
    "extract_masks": (
        *(c_void_p, c_void_p, c_int, c_int64, c_int, c_int, c_int, c_int, c_int),
        *(ctypes.POINTER(ctypes.c_float), c_int, c_void_p),
    ),
    "clean_masks": (c_void_p, c_void_p, c_int64, c_int, c_int, c_int, c_int, c_void_p),
}
_WORKSPACES = {"threshold_workspace": (c_int64,), "mask_workspace": (c_int64, c_int, c_int)}


def why_not(*tensors: Tensor) -> str | None:
    if not torch.cuda.is_available():
        return "there is no CUDA device"
    for tensor in tensors:
        if tensor.device.type != "cuda":
            return f"it works on CUDA tensors, these are on {tensor.device}"
        if torch.cuda.get_device_capability(tensor.device) < CAPABILITY:
            return "it needs a GPU of compute capability 8.0 or newer"
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def launch(function: str, device: torch.device, *arguments: object) -> None:
    """Calls `function` of the library on the current stream of `device`; RuntimeError if CUDA reports an error."""
    with _current(device) as (number, stream):
        code = getattr(_library(), function)(*arguments, number, stream)
    if code != 0:
        raise RuntimeError(f"{function} on {device}: CUDA error {code}: {_library().error_message(code).decode()}")


def workspace(function: str, device: torch.device, *sizes: int) -> Tensor:
    """Scratch memory of as many bytes as `function` of the library names for `sizes`."""
    return torch.empty(getattr(_library(), function)(*sizes), dtype=torch.uint8, device=device)


def declared(library: ctypes.CDLL) -> ctypes.CDLL:
    """The library with its functions' types; AttributeError if one is missing."""
    for name, parameters in _LAUNCHES.items():
        getattr(library, name).argtypes = (*parameters, c_int, c_void_p)
    for name, parameters in _WORKSPACES.items():
        getattr(library, name).argtypes = parameters
        getattr(library, name).restype = c_int64
    library.error_message.argtypes = (c_int,)
    library.error_message.restype = c_char_p
    return library


@cache
def _load() -> ctypes.CDLL | str:
    path = Path(__file__).resolve().parents[1] / NAME
    if not path.exists():
        return (
            "the CUDA kernels are not built: no nvcc of CUDA 12 or newer was found when lesionforge was installed; "
            "`pip install -v` tells what was found"
        )
    try:
        return declared(ctypes.CDLL(str(path)))
    except (OSError, AttributeError) as error:
        return f"the CUDA kernels do not load: {error}"


def _library() -> ctypes.CDLL:
    loaded = _load()
    if isinstance(loaded, str):
        raise ImportError(loaded)
    return loaded


@contextmanager
def _current(device: torch.device) -> Iterator[tuple[int, int]]:
    """Makes `device` current: its number and its current stream."""
    with torch.cuda.device(device):
        yield torch.cuda.current_device(), torch.cuda.current_stream().cuda_stream
