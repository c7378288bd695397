"""Reads PH2 (Mendonca et al., EMBC 2013) in its official layout, one folder a case."""

from __future__ import annotations

import re
from pathlib import Path

from ...core.dataset import Dataset
from ...core.errors import DataError
from .assembling import Parts, assemble
from .layout import Tree, data_folder, image_files
from .options import DataOptions
from .tables import read_text

CASE = r"IMD\d+"
DIAGNOSES = {"0": "common_nevus", "1": "atypical_nevus", "2": "melanoma"}
NAME_CELL, HISTOLOGY_CELL, CLINICAL_CELL = 1, 2, 3


def load_ph2(location: str | None, options: DataOptions) -> Dataset:
    """Return the cases IMD*/IMD*_Dermoscopic_Image and IMD*_lesion below ``location``.

    Raises:
        DataError: no case is there, or PH2_dataset.txt is malformed.
    """
    root = data_folder("ph2", location)
    tree = Tree(root)
    parts = Parts({})
    for folder, _ in tree.folders(rf"{CASE}_dermoscopic_image"):
        parts.images |= image_files(folder)
    for folder, _ in tree.folders(rf"{CASE}_lesion"):
        parts.masks |= image_files(folder, ending="_lesion")
    if not parts.images:
        raise DataError(f"ph2: {root} has no cases of the official layout, IMD002/IMD002_Dermoscopic_Image/IMD002.bmp")
    for path in tree.files(r"PH2_dataset\.txt"):
        _add_diagnoses(path, parts)
    return assemble("ph2", root, parts, options)


def _add_diagnoses(path: Path, parts: Parts) -> None:
    """Read the table of PH2_dataset.txt, whose cells stand between double bars; legends follow below it."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        cells = [cell.strip() for cell in line.split("||")]
        if len(cells) <= CLINICAL_CELL or not re.fullmatch(CASE, cells[NAME_CELL]):
            continue
        if cells[CLINICAL_CELL] not in DIAGNOSES:
            raise DataError(f"{path} line {number}: clinical diagnosis {cells[CLINICAL_CELL]!r} is not 0, 1 or 2")
        parts.labels[cells[NAME_CELL]] = DIAGNOSES[cells[CLINICAL_CELL]]
        if cells[HISTOLOGY_CELL]:
            parts.metadata[cells[NAME_CELL]] = {"histological_diagnosis": cells[HISTOLOGY_CELL]}
