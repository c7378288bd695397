"""Locks that vanish with the process that holds them."""

from __future__ import annotations

import fcntl
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import StoreError

LOOK_AGAIN = 0.05


@contextmanager
def flocked(file: Path, mode: int, busy: str, *, patience: float) -> Iterator[None]:
    """Hold a lock on ``file``, which is created, during the block.

    Args:
        mode: ``fcntl.LOCK_EX`` or ``fcntl.LOCK_SH``.
        busy: what to say where another process holds it.
        patience: seconds to wait for it.

    Raises:
        StoreError: it is still held, or the file system has no locks or refuses the file.
    """
    with _opened(file) as descriptor:
        deadline = time.monotonic() + patience
        while not _taken(descriptor, mode, file):
            if time.monotonic() > deadline:
                raise StoreError(busy)
            time.sleep(LOOK_AGAIN)
        yield


@contextmanager
def lock_tried(file: Path) -> Iterator[bool]:
    """Hold an exclusive lock on ``file`` during the block if no other process does; yield whether it is held."""
    with _opened(file) as descriptor:
        yield _taken(descriptor, fcntl.LOCK_EX, file)


@contextmanager
def _opened(file: Path) -> Iterator[int]:
    try:
        opened = file.open("w")
    except OSError as error:
        raise StoreError(f"cannot write to {file.parent}: {error.strerror}") from error
    with opened:
        yield opened.fileno()


def _taken(descriptor: int, mode: int, file: Path) -> bool:
    try:
        fcntl.flock(descriptor, mode | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    except OSError as error:
        raise StoreError(f"{file.parent} is on a file system without locks: {error.strerror}") from error
    return True
