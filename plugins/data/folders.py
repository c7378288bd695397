"""Sources for data in plain folders: your own images and masks, Hugging Face image folders, finished runs."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ...core.hookspecs import hookimpl
from ...core.roles import Plugin, Source
from .options import DataOptions

if TYPE_CHECKING:
    from ...core.dataset import Dataset


class Folder(Source):
    """Your own data: images/ and masks/ with equal file stems; optional labels.csv, captions.json, splits.csv.

    labels.csv has the columns image_id and label and may have group (lesion or patient) and split; further columns
    become metadata. Masks are white (255) inside the lesion. Masks, labels and captions may be missing, for all
    images or for some.
    """

    name = "folder"
    Config = DataOptions

    def load(self, location: str | None) -> Dataset:
        """Return the images in ``location``/images with what belongs to them."""
        from .folder_layouts import load_folder

        return load_folder(location, self.config)


class ImageFolder(Source):
    """Hugging Face imagefolder: metadata.jsonl (or .csv) beside the images, or class sub-folders; split folders.

    Of a metadata row these keys are read: file_name, mask_file_name, image_id, label, text or caption, group or
    lesion_id, split; further ones become metadata. File names must stay within the folder. Without metadata files a
    sub-folder's name is the label. An image's id is its file's stem, or its path where stems repeat.
    """

    name = "imagefolder"
    Config = DataOptions

    def load(self, location: str | None) -> Dataset:
        """Return the images below ``location``."""
        from .imagefolder import load_imagefolder

        return load_imagefolder(location, self.config)


class Run(Source):
    """The accepted cases of a lesionforge run, as a dataset. The seed of each case stands in its metadata."""

    name = "run"

    def load(self, location: str | None) -> Dataset:
        """Return the kept cases of the run folder ``location``; none belongs to a split."""
        from .folder_layouts import load_run

        return load_run(location)


@hookimpl
def register_plugins() -> Iterable[type[Plugin]]:
    """Return the sources of this module."""
    return [Folder, ImageFolder, Run]
