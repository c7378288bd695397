"""Folders and file names of image data: finding what is there, and staying inside whatever a metadata file says."""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from functools import cached_property
from pathlib import Path, PurePosixPath

from ...core.errors import DataError

PHANTOM_MARK = "PHANTOM.txt"
"""A file of this name in a dataset's folder says that its images are procedural phantoms."""

IMAGE_SUFFIXES = frozenset({".jpg", ".jpeg", ".png", ".bmp", ".tif", ".tiff", ".webp"})
SEARCH_DEPTH = 4


def data_folder(source: str, location: str | None) -> Path:
    """Return the folder at ``location``.

    Raises:
        DataError: no location was given, or no folder is there.
    """
    if not location:
        raise DataError(f"source {source} needs a folder: {source}:PATH")
    folder = Path(location).expanduser()
    if not folder.is_dir():
        problem = "is not a folder" if folder.exists() else "does not exist"
        raise DataError(f"{source}: {folder} {problem}; give {source}:FOLDER")
    return folder


def bare_id(name: str) -> str:
    """Return an image id without the suffix that some tables leave on it."""
    name = name.strip()
    path = PurePosixPath(name)
    return name[: -len(path.suffix)] if path.suffix.lower() in IMAGE_SUFFIXES and path.stem else name


def checked_name(name: str) -> str:
    """Return a file's name; one that is not valid Unicode could be neither an id nor written to any table.

    Raises:
        DataError: the name's bytes are not valid UTF-8.
    """
    if any("\ud800" <= sign <= "\udfff" for sign in name):
        raise DataError(f"file name {name!r} is not valid UTF-8; rename the file")
    return name


def listed(folder: Path) -> list[os.DirEntry[str]]:
    """Return a folder's entries by name, hidden ones left out (``._ISIC_0000000.jpg`` of macOS is no image).

    Raises:
        DataError: the folder cannot be read.
    """
    try:
        with os.scandir(folder) as entries:
            return sorted((entry for entry in entries if not entry.name.startswith(".")), key=lambda entry: entry.name)
    except OSError as error:
        raise DataError(f"cannot read folder {folder}: {error.strerror}") from None


def image_files(folder: Path, *, ending: str = "") -> dict[str, Path]:
    """Return the image files directly in ``folder`` by id, which is the stem without ``ending``.

    With an ``ending`` (``_segmentation``, upper or lower case) files without it are left out.

    Raises:
        DataError: two files have one id.
    """
    found: dict[str, Path] = {}
    for entry in listed(folder):
        path = folder / checked_name(entry.name)
        if path.suffix.lower() not in IMAGE_SUFFIXES or not path.stem.lower().endswith(ending) or entry.is_dir():
            continue
        image_id = path.stem[: len(path.stem) - len(ending)]
        if image_id in found:
            raise DataError(f"{folder}: {found[image_id].name} and {path.name} both belong to image id {image_id!r}")
        found[image_id] = path
    return found


class Tree:
    """Folders and tables below a dataset's root, at most four levels down, since archives unpack to varying depths."""

    def __init__(self, root: Path) -> None:
        self.root = root

    @cached_property
    def _entries(self) -> list[tuple[Path, bool]]:
        def below(folder: Path, depth: int) -> Iterator[tuple[Path, bool]]:
            for entry in listed(folder):
                path = folder / entry.name
                if entry.is_dir():
                    yield path, True
                    if depth < SEARCH_DEPTH:
                        yield from below(path, depth + 1)
                elif path.suffix.lower() not in IMAGE_SUFFIXES:
                    yield path, False

        return [(self.root, True), *below(self.root, 1)]

    def folders(self, pattern: str) -> list[tuple[Path, re.Match[str]]]:
        """Return folders whose whole name matches ``pattern`` in any case, the root included."""
        return self._matching(pattern, folders=True)

    def files(self, pattern: str) -> list[Path]:
        """Return files, images excepted, whose whole name matches ``pattern`` in any case."""
        return [path for path, _ in self._matching(pattern, folders=False)]

    def _matching(self, pattern: str, *, folders: bool) -> list[tuple[Path, re.Match[str]]]:
        candidates = (path for path, is_folder in self._entries if is_folder is folders)
        pairs = ((path, re.fullmatch(pattern, path.name, re.IGNORECASE)) for path in candidates)
        return [(path, match) for path, match in pairs if match]


def contained(folder: Path, name: str, *, root: Path, where: str) -> Path:
    """Return the file that a metadata file calls ``name``, relative to ``folder``, with all links resolved.

    Raises:
        DataError: the name leads out of ``root`` (by ``..``, an absolute path or a link), or no file is there.
    """
    try:
        target = (folder / name).resolve()
        inside = not Path(name).is_absolute() and target.is_relative_to(root.resolve())
        is_file = inside and target.is_file()
    except (OSError, RuntimeError, ValueError) as error:
        raise DataError(f"{where}: {name!r} is no usable file name: {error}") from None
    if not inside:
        raise DataError(f"{where}: {name!r} leads out of {root}, which is not followed; put the file inside")
    if not is_file:
        raise DataError(f"{where}: file {name!r} does not exist in {folder}")
    return target
