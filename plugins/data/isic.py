"""Sources for the public dermoscopy sets, in the folder layouts of their official downloads.

Give the folder into which the archives were unpacked; only what is there is used. Each archive has a licence of
its own, most of them for non-commercial use only.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Literal

from pydantic import Field

from ...core.hookspecs import hookimpl
from ...core.roles import Plugin, Source
from .options import DataOptions

if TYPE_CHECKING:
    from ...core.dataset import Dataset


class Isic2016(Source):
    """ISIC 2016 (ISBI) Part 1 images and masks, labels benign or malignant of Part 3."""

    name = "isic2016"
    Config = DataOptions

    def load(self, location: str | None) -> Dataset:
        """Return what of ISBI2016_ISIC_Part1_*_Data, Part1_*_GroundTruth and Part3_*_GroundTruth.csv is there."""
        from .isic_layouts import ISIC_2016, load_layout

        return load_layout(self.name, location, ISIC_2016, self.config)


class Isic2017(Source):
    """ISIC 2017 images, Part 1 masks and Part 3 labels (melanoma, seborrheic_keratosis, nevus)."""

    name = "isic2017"
    Config = DataOptions

    def load(self, location: str | None) -> Dataset:
        """Return what of ISIC-2017_*_Data, *_Part1_GroundTruth and *_Part3_GroundTruth.csv is there."""
        from .isic_layouts import ISIC_2017, load_layout

        return load_layout(self.name, location, ISIC_2017, self.config)


class Isic2018(Source):
    """ISIC 2018 images, Task 1 with masks or Task 3 with labels.

    Task 1 has no labels of its own; those of Task 3 or ISIC 2017 Part 3 are used where they lie beside.
    ISIC 2017 is contained in it: never train on one and test on the other.
    """

    name = "isic2018"

    class Config(DataOptions):
        """Options of ISIC 2018."""

        task: Literal[1, 3] = Field(1, description="1: images and masks of Task 1-2; 3: images and labels of Task 3")

    def load(self, location: str | None) -> Dataset:
        """Return what of the task's *_Input and *_GroundTruth folders and tables is there."""
        from .isic_layouts import ISIC_2018, load_layout

        return load_layout(self.name, location, ISIC_2018[self.config.task], self.config)


class Isic2019(Source):
    """ISIC 2019 images with eight diagnoses, grouped by the lesion_id of the metadata."""

    name = "isic2019"
    Config = DataOptions

    def load(self, location: str | None) -> Dataset:
        """Return what of ISIC_2019_*_Input, *_GroundTruth.csv and *_Metadata.csv is there."""
        from .isic_layouts import ISIC_2019, load_layout

        return load_layout(self.name, location, ISIC_2019, self.config)


class Isic2020(Source):
    """ISIC 2020 (SIIM) images, grouped by patient; the archive's list of duplicates joins groups."""

    name = "isic2020"

    class Config(DataOptions):
        """Options of ISIC 2020."""

        label_column: Literal["benign_malignant", "diagnosis"] = Field(
            "benign_malignant", description="which column is the label; most diagnoses are unknown"
        )

    def load(self, location: str | None) -> Dataset:
        """Return what of the train and test JPEG folders and their tables is there."""
        from .isic_layouts import isic_2020, load_layout

        return load_layout(self.name, location, isic_2020(self.config.label_column), self.config)


class Ham10000(Source):
    """HAM10000 images with seven diagnoses and Tschandl's lesion masks, grouped by lesion_id."""

    name = "ham10000"
    Config = DataOptions

    def load(self, location: str | None) -> Dataset:
        """Return what of HAM10000_images_part_*, HAM10000_segmentations_* and HAM10000_metadata is there."""
        from .isic_layouts import HAM10000, load_layout

        return load_layout(self.name, location, HAM10000, self.config)


class Ph2(Source):
    """PH2: 200 images with masks, labels common_nevus, atypical_nevus or melanoma from PH2_dataset.txt."""

    name = "ph2"
    Config = DataOptions

    def load(self, location: str | None) -> Dataset:
        """Return the cases in the IMD* folders below ``location``."""
        from .ph2 import load_ph2

        return load_ph2(location, self.config)


@hookimpl
def register_plugins() -> Iterable[type[Plugin]]:
    """Return the sources of this module."""
    return [Isic2016, Isic2017, Isic2018, Isic2019, Isic2020, Ham10000, Ph2]
