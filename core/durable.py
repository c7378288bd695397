"""Files that are either whole or absent: written under a temporary name, synced, renamed."""

from __future__ import annotations

import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from .errors import StoreError

TEMPORARY_PREFIX = ".tmp-"


def write_bytes(path: Path, content: bytes) -> None:
    """Write ``content`` to ``path`` so that a kill or a full disk leaves the old file or none.

    Raises:
        StoreError: the file system refuses (read-only, full).
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}"[:200])
    try:
        with temporary.open("xb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        temporary.replace(path)
        sync_folder(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise StoreError(f"cannot write {path}: {error.strerror}") from error


def read_json(path: Path) -> Any:
    """Return the content of a JSON file; raises StoreError where it is missing or damaged."""
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError, RecursionError) as error:
        raise StoreError(f"{path} cannot be read: {getattr(error, 'strerror', None) or error}") from error


def write_text(path: Path, content: str) -> None:
    """Write UTF-8 text durably, see :func:`write_bytes`."""
    write_bytes(path, content.encode())


def made_folder(path: Path) -> Path:
    """Return ``path``, a folder that is made where it is missing; raises StoreError where the file system refuses."""
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise StoreError(f"cannot write {path}: {error.strerror}") from error
    return path


@contextmanager
def new_folder(path: Path) -> Iterator[Path]:
    """Yield an empty temporary folder that becomes ``path`` if the block succeeds; the rename is the commit.

    A folder already standing at ``path`` is replaced; a kill between the two renames leaves none, so only what can be
    made again may be replaced. Raises StoreError where the file system refuses.
    """
    temporary = path.with_name(f"{TEMPORARY_PREFIX}{uuid.uuid4().hex[:8]}-{path.name}")
    try:
        temporary.mkdir(parents=True)
        yield temporary
        sync_tree(temporary)
        replaced = path.with_name(f"{temporary.name}-old")
        if path.exists():
            path.rename(replaced)
        try:
            temporary.rename(path)
        except OSError:
            if replaced.exists():
                replaced.rename(path)
            raise
        sync_folder(path.parent)
        shutil.rmtree(replaced, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(temporary, ignore_errors=True)
        raise StoreError(f"cannot write {path}: {error.strerror or error}") from error
    except BaseException:
        shutil.rmtree(temporary, ignore_errors=True)
        raise


def require_empty(path: Path) -> None:
    """Raise StoreError where something stands at ``path`` that writing a folder there would replace."""
    try:
        taken = path.exists() and (not path.is_dir() or any(path.iterdir()))
    except OSError as error:
        raise StoreError(f"cannot read {path}: {error.strerror}") from error
    if taken:
        raise StoreError(f"{path} is there already and not empty; choose another --output")


def remove_leftovers(folder: Path) -> None:
    """Delete what killed processes left under temporary names directly in ``folder``."""
    for leftover in folder.glob(f"{TEMPORARY_PREFIX}*"):
        if leftover.is_dir():
            shutil.rmtree(leftover, ignore_errors=True)
        else:
            leftover.unlink(missing_ok=True)


def sync_tree(folder: Path) -> None:
    """Force every file and directory below ``folder`` to disk."""
    for current, _, names in os.walk(folder):
        for name in names:
            with Path(current, name).open("rb") as file:
                os.fsync(file.fileno())
        sync_folder(Path(current))


def sync_folder(folder: Path) -> None:
    """Force a directory's entries to disk."""
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)


def file_hash(path: Path) -> str:
    """Return the SHA-256 of a file as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def tree_hash(path: Path) -> str:
    """Return one SHA-256 over the names and contents of a file, or of all files below a folder."""
    if path.is_file():
        return file_hash(path)
    digest = hashlib.sha256()
    for file in sorted(entry for entry in path.rglob("*") if entry.is_file()):
        digest.update(f"{file.relative_to(path).as_posix()}\0{file_hash(file)}\n".encode())
    return digest.hexdigest()
