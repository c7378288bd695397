"""Decoded pixels in memory, up to a limit."""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from threading import Lock

import numpy as np
from numpy.typing import NDArray

CACHE_BYTES = 2 * 1024**3
Pixels = NDArray[np.uint8]


class PixelCache:
    """Decoded pixels, least recently used dropped first, shared by all views of one dataset."""

    def __init__(self, limit: int = CACHE_BYTES) -> None:
        self._limit = limit
        self._bytes = 0
        self._entries: OrderedDict[tuple[str, str, int | None], Pixels] = OrderedDict()
        self._lock = Lock()

    def get(self, key: tuple[str, str, int | None], decode: Callable[[], Pixels]) -> Pixels:
        """Return the pixels kept under ``key`` (image id, kind, size), decoded where there are none."""
        with self._lock:
            if key in self._entries:
                self._entries.move_to_end(key)
                return self._entries[key]
        pixels = decode()
        with self._lock:
            if key not in self._entries:
                self._entries[key] = pixels
                self._bytes += pixels.nbytes
            while self._bytes > self._limit and len(self._entries) > 1:
                self._bytes -= self._entries.popitem(last=False)[1].nbytes
        return pixels
