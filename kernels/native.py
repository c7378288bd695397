"""The compiled module `lesionforge._native`, imported on first use, and the reason when there is none."""

from __future__ import annotations

from functools import cache
from importlib import import_module
from types import ModuleType

from torch import Tensor  # first, so that the native module shares torch's OpenMP runtime


@cache
def _load() -> ModuleType | str:
    try:
        return import_module("..._native", __name__)
    except ModuleNotFoundError:
        return (
            "the native module is not built: no C++ compiler or CMake was found when lesionforge was installed; "
            "LESIONFORGE_REQUIRE_NATIVE=1 pip install shows why"
        )
    except ImportError as error:
        return f"the native module does not load: {error}"


def why_missing() -> str | None:
    """None if the native module is here, else the reason in words."""
    loaded = _load()
    return loaded if isinstance(loaded, str) else None


def why_not(*tensors: Tensor) -> str | None:
    """None if the native module is here and can read `tensors`, else the reason."""
    for tensor in tensors:
        if tensor.device.type != "cpu":
            return f"it works on tensors in main memory, these are on {tensor.device}"
    return why_missing()


def module() -> ModuleType:
    """The native module; call only after `why_missing()` has returned None."""
    loaded = _load()
    if isinstance(loaded, str):
        raise ImportError(loaded)
    return loaded
