"""Diagnosis codes of the ISIC archive and the label tables that use them, under one vocabulary of class names."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

from ...core.errors import DataError
from .tables import read_table

DIAGNOSES = {
    "mel": "melanoma",
    "nv": "nevus",
    "bcc": "basal_cell_carcinoma",
    "ak": "actinic_keratosis",
    "akiec": "actinic_keratosis_or_intraepithelial_carcinoma",
    "bkl": "benign_keratosis",
    "df": "dermatofibroma",
    "vasc": "vascular_lesion",
    "scc": "squamous_cell_carcinoma",
    "unk": "other",
}
"""Class names for the codes of HAM10000, ISIC 2018 Task 3 and ISIC 2019; ``unk`` there means none of the others."""

LabelReader = Callable[[Path], dict[str, str]]


def _is_set(cell: str, *, where: str) -> bool:
    try:
        value = float(cell)
    except ValueError:
        value = -1.0
    if value not in (0.0, 1.0):
        raise DataError(f"{where}: expected 0 or 1, found {cell!r}")
    return value == 1.0


def melanoma_or_keratosis(path: Path) -> dict[str, str]:
    """Read an ISIC 2017 Part 3 table: melanoma or seborrheic keratosis, both 0 for a nevus."""
    names = ("melanoma", "seborrheic_keratosis")
    return _one_of(path, {name: name for name in names}, required=names, otherwise="nevus")


def one_hot(path: Path) -> dict[str, str]:
    """Read an ISIC 2018 Task 3 or ISIC 2019 table: one column a diagnosis code; images with no 1 have no label."""
    return _one_of(path, {code.upper(): name for code, name in DIAGNOSES.items()}, required=("MEL", "NV"), otherwise="")


def _one_of(path: Path, columns: Mapping[str, str], *, required: tuple[str, ...], otherwise: str) -> dict[str, str]:
    labels: dict[str, str] = {}
    for image_id, row in read_table(path, required=required).items():
        cells = [(name, row[column]) for column, name in columns.items() if column in row]
        chosen = [name for name, cell in cells if _is_set(cell, where=f"{path}, image {image_id!r}, {name}")]
        if len(chosen) > 1:
            raise DataError(f"{path}: image {image_id!r} is labelled both {chosen[0]} and {chosen[1]}")
        if label := chosen[0] if chosen else otherwise:
            labels[image_id] = label
    return labels


def benign_or_malignant(path: Path) -> dict[str, str]:
    """Read an ISIC 2016 Part 3 table, which has no header: benign and malignant for training, 0.0 and 1.0 for test."""
    labels: dict[str, str] = {}
    for image_id, row in read_table(path, header=("image_id", "label")).items():
        word = row["label"].lower()
        if word not in ("benign", "malignant"):
            word = "malignant" if _is_set(word, where=f"{path}, image {image_id!r}") else "benign"
        labels[image_id] = word
    return labels
