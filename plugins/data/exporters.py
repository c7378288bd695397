"""Exporters: a dataset or the accepted cases of a run, in layouts that other programs read."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

from ...core.hookspecs import hookimpl
from ...core.roles import Exporter, Plugin

if TYPE_CHECKING:
    from ...core.dataset import Dataset


class FolderExporter(Exporter):
    """images/ and masks/ with equal stems, labels.csv, captions.json: what the source folder reads."""

    name = "folder"

    def export(self, dataset: Dataset, output: Path) -> None:
        """Write images as they are (PNG if resized or in memory) and masks as PNG of 0 and 255."""
        from .exporting import export_folder

        export_folder(dataset, output)


class ImageFolderExporter(Exporter):
    """Hugging Face imagefolder with metadata.jsonl, in train/, validation/ and test/ if all cases have a split."""

    name = "imagefolder"

    def export(self, dataset: Dataset, output: Path) -> None:
        """Write images, masks (``mask_file_name``), labels, captions (``text``) and groups."""
        from .exporting import export_imagefolder

        export_imagefolder(dataset, output)


class Isic2018Exporter(Exporter):
    """ISIC 2018 Task 1 folders, with splits.csv for labels, lesions and splits: what the source isic2018 reads."""

    name = "isic2018"

    def export(self, dataset: Dataset, output: Path) -> None:
        """Write ISIC2018_Task1-2_*_Input and ISIC2018_Task1_*_GroundTruth; cases without a split go to Training."""
        from .exporting import export_isic2018

        export_isic2018(dataset, output)


class CocoExporter(Exporter):
    """COCO instances: images/ and annotations/instances_SPLIT.json, one exact run-length encoded lesion an image."""

    name = "coco"

    def export(self, dataset: Dataset, output: Path) -> None:
        """Write one annotation for each image with a mask that is not empty."""
        from .coco import export_coco

        export_coco(dataset, output)


@hookimpl
def register_plugins() -> Iterable[type[Plugin]]:
    """Return the exporters of this module."""
    return [FolderExporter, ImageFolderExporter, Isic2018Exporter, CocoExporter]
