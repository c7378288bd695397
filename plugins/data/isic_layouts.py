"""The official folder layouts of the ISIC challenges and HAM10000, as data, and one reader for all of them.

Names are those of the archives at https://challenge.isic-archive.com/data and
https://doi.org/10.7910/DVN/DBW86T; they are matched in any case and at most four levels below the given folder.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

from ...core.dataset import Dataset
from ...core.errors import DataError
from .assembling import Parts, assemble
from .labels import DIAGNOSES, LabelReader, benign_or_malignant, melanoma_or_keratosis, one_hot
from .layout import Tree, data_folder, image_files
from .options import DataOptions
from .tables import SPLIT_NAMES, read_rows, read_table

SPLIT = "(?P<split>training|train|validation|test)"
NOT_A_LABEL = frozenset({"", "unknown"})
GROUP_COLUMNS = ("patient_id", "patient", "lesion_id")
SUPERPIXELS = "_superpixels"
SEGMENTATION = "_segmentation"


@dataclass(frozen=True)
class Layout:
    """Where one challenge keeps what. Patterns match whole names; a group called ``split`` tells the split.

    Attributes:
        expected: an example of the folders, for the error where none is found.
        images: pattern of the folders with images.
        masks: pattern of the folders with ``<id>_segmentation`` masks.
        labels: pairs of a pattern and the reader of such label tables; the first to know an image decides.
        tables: pattern of metadata tables.
        label_column: column of the metadata tables that holds the label, codes of :data:`DIAGNOSES` spelt out.
        duplicates: pattern of tables with pairs of images that show the same.
    """

    expected: str
    images: str
    masks: str | None = None
    labels: tuple[tuple[str, LabelReader], ...] = ()
    tables: str | None = None
    label_column: str | None = None
    duplicates: str | None = None


ISIC_2016 = Layout(
    expected="ISBI2016_ISIC_Part1_Training_Data",
    images=rf"isbi2016_isic_part1_{SPLIT}_data",
    masks=rf"isbi2016_isic_part1_{SPLIT}_groundtruth",
    labels=((rf"isbi2016_isic_part3_{SPLIT}_groundtruth\.csv", benign_or_malignant),),
)
LABELS_2017 = (rf"isic-2017_{SPLIT}(_v2)?_part3_groundtruth\.csv", melanoma_or_keratosis)
ISIC_2017 = Layout(
    expected="ISIC-2017_Training_Data",
    images=rf"isic-2017_{SPLIT}(_v2)?_data",
    masks=rf"isic-2017_{SPLIT}(_v2)?_part1_groundtruth",
    labels=(LABELS_2017,),
    tables=rf"isic-2017_{SPLIT}(_v2)?_data_metadata\.csv",
)
LABELS_2018 = (rf"isic2018_task3_{SPLIT}_groundtruth\.csv", one_hot)
GROUPS_2018 = rf"isic2018_task3_{SPLIT}_lesiongroupings\.csv"
ISIC_2018 = {
    1: Layout(
        expected="ISIC2018_Task1-2_Training_Input",
        images=rf"isic2018_task1-2_{SPLIT}_input",
        masks=rf"isic2018_task1_{SPLIT}_groundtruth",
        labels=(LABELS_2018, LABELS_2017),
        tables=GROUPS_2018,
    ),
    3: Layout(
        expected="ISIC2018_Task3_Training_Input",
        images=rf"isic2018_task3_{SPLIT}_input",
        labels=(LABELS_2018,),
        tables=GROUPS_2018,
    ),
}
ISIC_2019 = Layout(
    expected="ISIC_2019_Training_Input",
    images=rf"isic_2019_{SPLIT}_input",
    labels=((rf"isic_2019_{SPLIT}_groundtruth\.csv", one_hot),),
    tables=rf"isic_2019_{SPLIT}_metadata\.csv",
)
HAM10000 = Layout(
    expected="HAM10000_images_part_1",
    images=r"ham10000_images(_part_\d)?",
    masks=r"ham10000_segmentations?(_.*)?",
    tables=r"ham10000_metadata(\.csv|\.tab|\.txt)?",
    label_column="dx",
)


def isic_2020(label_column: str) -> Layout:
    """Return the layout of ISIC 2020, of the archive or of Kaggle, with the label taken from ``label_column``."""
    return Layout(
        expected="train (unpacked from ISIC_2020_Training_JPEG.zip)",
        images=rf"(isic_2020_)?{SPLIT}(_jpeg|_input)?",
        tables=r"isic_2020_training_groundtruth(_v2)?\.csv|isic_2020_test_metadata\.csv|(train|test)\.csv",
        label_column=label_column,
        duplicates=r"isic_2020_training_duplicates\.csv",
    )


def load_layout(name: str, location: str | None, layout: Layout, options: DataOptions) -> Dataset:
    """Return the dataset that lies in ``layout`` at ``location``.

    Raises:
        DataError: no image folder is there, a table is malformed, or two files or rows contradict each other.
    """
    root = data_folder(name, location)
    tree = Tree(root)
    parts = Parts({})
    for folder, match in tree.folders(layout.images):
        found = {key: path for key, path in image_files(folder).items() if not key.lower().endswith(SUPERPIXELS)}
        _add(parts.images, found)
        if split := _split_of(match):
            parts.splits |= dict.fromkeys(found, split)
    if not parts.images:
        raise DataError(f"{name}: {root} has no folder with images in the official layout, such as {layout.expected}")
    for folder, _ in tree.folders(layout.masks) if layout.masks else []:
        _add(parts.masks, image_files(folder, ending=SEGMENTATION))
    for pattern, read in layout.labels:
        _add_labels(parts, ((path, read(path)) for path in tree.files(pattern)))
    for path in tree.files(layout.tables) if layout.tables else []:
        _add_metadata(parts, path, layout.label_column)
    for path in tree.files(layout.duplicates) if layout.duplicates else []:
        _join_groups(parts, path)
    return assemble(name, root, parts, options)


def _split_of(match: re.Match[str]) -> str | None:
    name = match.groupdict().get("split")
    return SPLIT_NAMES[name.lower()] if name else None


def _add(files: dict[str, Path], found: Mapping[str, Path]) -> None:
    """Merge files by id; a second copy with name and size alike (Kaggle's HAM10000 has some) is passed over."""
    for image_id, path in found.items():
        other = files.setdefault(image_id, path)
        if other is not path and (other.name, other.stat().st_size) != (path.name, path.stat().st_size):
            raise DataError(f"image id {image_id!r} is both in {other.parent} and in {path.parent}; keep one of them")


def _add_labels(parts: Parts, tables: Iterable[tuple[Path, Mapping[str, str]]]) -> None:
    """Merge tables of one kind; where another kind has already labelled an image, that label stays."""
    merged: dict[str, str] = {}
    for path, labels in tables:
        for image_id, label in labels.items():
            if merged.setdefault(image_id, label) != label:
                raise DataError(f"{path}: image {image_id!r} is {label}, but {merged[image_id]} in another table")
    parts.labels = {**merged, **parts.labels}


def _add_metadata(parts: Parts, path: Path, label_column: str | None) -> None:
    rows = read_table(path)
    for image_id, row in rows.items():
        group = next((row[name] for name in GROUP_COLUMNS if row.get(name)), "")
        if group:
            parts.groups[image_id] = group
        parts.metadata[image_id] = {**parts.metadata.get(image_id, {}), **row}
    if label_column is not None:
        texts = {image_id: row.get(label_column, "") for image_id, row in rows.items()}
        labels = {key: text for key, text in texts.items() if text.lower() not in NOT_A_LABEL}
        _add_labels(parts, [(path, {key: DIAGNOSES.get(text.lower(), text) for key, text in labels.items()})])


def _join_groups(parts: Parts, path: Path) -> None:
    """Give both images of each pair in a table of duplicates, and all that share their groups, one group."""
    joined: dict[str, str] = {}

    def head(group: str) -> str:
        while group in joined:
            group = joined[group]
        return group

    for _, row in read_rows(path, required=["image_name_1", "image_name_2"]):
        pair = (row["image_name_1"], row["image_name_2"])
        one, other = (head(parts.groups.get(image_id, image_id)) for image_id in pair)
        if one != other:
            joined[other] = one
    for image_id in parts.images:
        parts.groups[image_id] = head(parts.groups.get(image_id, image_id))
