"""The memory that a run takes in main memory, and what it saves for its backward pass."""

from __future__ import annotations

import ctypes
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from torch import Tensor
from torch.autograd.graph import saved_tensors_hooks

from lesionforge.kernels.measuring import Memory

PROCESS = Path("/proc/self")


class SavedForBackward(saved_tensors_hooks):
    """Counts, inside its ``with`` block, the bytes that autograd holds at once; what is saved twice counts once.

    Attributes:
        peak: the most bytes so far, without those of ``besides``.
    """

    def __init__(self, besides: Iterable[Tensor]) -> None:
        super().__init__(self._pack, lambda saved: saved.tensor)
        self._others = {tensor.untyped_storage().data_ptr() for tensor in besides}
        self._holders: Counter[int] = Counter()
        self._held = self.peak = 0

    def _pack(self, tensor: Tensor) -> _Saved:
        # With its history a result would keep the node that saves it alive, and itself with it.
        return _Saved(tensor.detach(), self)

    def hold(self, tensor: Tensor, change: int) -> None:
        """Note one holder of the tensor's storage more (1) or less (-1)."""
        storage = tensor.untyped_storage()
        address = storage.data_ptr()
        if address in self._others:
            return
        before = self._holders[address] > 0
        self._holders[address] += change
        self._held += storage.nbytes() * ((self._holders[address] > 0) - before)
        self.peak = max(self.peak, self._held)


class _Saved:
    """Keeps a tensor for as long as its graph does."""

    def __init__(self, tensor: Tensor, ledger: SavedForBackward) -> None:
        self.tensor, self._ledger = tensor, ledger
        ledger.hold(tensor, 1)

    def __del__(self) -> None:
        self._ledger.hold(self.tensor, -1)


def memory_use(run: Callable[[], Any], *, besides: Iterable[Tensor]) -> tuple[Any, Memory]:
    """Return what `run` makes and the memory that it takes.

    besides: weights of networks, which autograd saves too but which are there anyway.
    """
    before = _resident_bytes("VmRSS") if _reset_peak() else None
    saved = SavedForBackward(besides)
    with saved:
        result = run()
    return result, Memory(saved.peak, None if before is None else _resident_bytes("VmHWM") - before)


def _reset_peak() -> bool:
    """Begin a new peak of resident memory; False where the system keeps none, or this process may not reset it."""
    trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
    if trim is None or not (PROCESS / "clear_refs").exists():
        return False
    trim(0)  # what earlier runs have freed would hide what this one takes
    try:
        (PROCESS / "clear_refs").write_text("5")
    except OSError:
        return False
    return True


def _resident_bytes(field: str) -> int:
    status = dict(line.split(":", 1) for line in (PROCESS / "status").read_text().splitlines())
    return int(status[field].split()[0]) * 1024
