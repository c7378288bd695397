"""Paths that users name: which folders are free for a run, and which names are paths on this machine."""

from __future__ import annotations

from pathlib import Path


def is_free(folder: Path) -> bool:
    """True where a run may begin at ``folder``: nothing is there, or a folder with nothing but hidden files."""
    return not folder.exists() or (folder.is_dir() and all(entry.name.startswith(".") for entry in folder.iterdir()))


def is_local(checkpoint: str) -> bool:
    """True where a checkpoint's name can only be a path: absolute, or relative beginning with a dot."""
    return Path(checkpoint).is_absolute() or checkpoint.startswith(".")
