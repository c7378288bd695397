"""Where a named checkpoint lies: a path of this machine, a folder that ships with the package, the hub's cache."""

from __future__ import annotations

import re
from pathlib import Path

from .errors import CheckpointError

BUILTIN_REFERENCE = "builtin:"
SHIPPED = Path(__file__).parents[1] / "checkpoints"
HUB_NAME = re.compile(r"[\w.-]+/[\w.-]+(@[\w./-]+)?")


def checkpoint_path(name: str) -> Path:
    """Return the file or folder that ``name`` stands for, without asking any network.

    Args:
        name: a path, ``builtin:NAME``, or a hub name ``owner/model`` or ``owner/model@revision``. A path that exists
            comes before a hub name; a hub name that is not in the cache is returned as the path it looks like.

    Raises:
        CheckpointError: no checkpoint of that name ships with the package.
    """
    if name.startswith(BUILTIN_REFERENCE):
        return _shipped(name.removeprefix(BUILTIN_REFERENCE))
    path = Path(name)
    return path if path.exists() else cached_snapshot(name) or path


def is_hub_name(name: str) -> bool:
    """True where ``name`` can be ``owner/model`` or ``owner/model@revision`` on the hub, and is no path that exists."""
    parts = name.split("@")[0].split("/")
    return HUB_NAME.fullmatch(name) is not None and not {".", ".."} & set(parts) and not Path(name).exists()


def cached_snapshot(name: str) -> Path | None:
    """Return the hub cache's folder of the hub name ``owner/model[@revision]``, None where it is not there."""
    if not is_hub_name(name):
        return None
    from huggingface_hub import snapshot_download
    from huggingface_hub.errors import HFValidationError, LocalEntryNotFoundError

    model, _, revision = name.partition("@")
    try:
        return Path(snapshot_download(model, revision=revision or None, local_files_only=True))
    except (LocalEntryNotFoundError, HFValidationError):
        return None


def hub_revision(path: Path) -> str | None:
    """Return the commit that a folder of the hub's cache holds, None for any other path."""
    return path.name if path.parent.name == "snapshots" and path.parents[1].name.startswith("models--") else None


def _shipped(name: str) -> Path:
    names = sorted(entry.name for entry in SHIPPED.iterdir() if entry.is_dir()) if SHIPPED.is_dir() else []
    if name not in names:
        raise CheckpointError(
            f"{BUILTIN_REFERENCE + name!r} names no checkpoint that ships with lesionforge; there are "
            f"{', '.join(names) or 'none'}"
        )
    return SHIPPED / name
