"""Do training and test data overlap, directly or by way of a generator? Nothing is trained before this is answered."""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from ..dataset import Dataset
from ..errors import DataError
from .provenance import Image, Provenance, images_of

SHOWN = 3
ARCHIVE_IMAGE = re.compile(r"ISIC_\d{7}", re.IGNORECASE)
ARCHIVE_LESION = re.compile(r"(HAM|IL)_\d{7}", re.IGNORECASE)


@dataclass(frozen=True)
class Leak:
    """Images or lesions of a test set that something learnt from.

    Attributes:
        test: name of the test set, ``test`` for the test split.
        by: what learnt from them.
        images: ids in the test set.
    """

    test: str
    by: str
    images: tuple[str, ...]

    def __str__(self) -> str:
        named = ", ".join(self.images[:SHOWN]) + (", ..." if len(self.images) > SHOWN else "")
        noun, verb = ("image", "is") if len(self.images) == 1 else ("images", "are")
        place = "the test split" if self.test == "test" else f"external set {self.test}"
        return f"{len(self.images)} {noun} of {place}, or of the same lesions, {verb} known to {self.by} ({named})"


class Known:
    """Images that something learnt from, to be looked up by content, by archive id and by lesion.

    The same file or pixels are the same image whatever its name. ISIC ids and archive lesion ids name an image or a
    lesion in every dataset. Other lesion names are compared only where both sides have an image in common, since
    ``lesion-7`` of one dataset is not that of another.
    """

    def __init__(self, images: Iterable[Image]) -> None:
        listed = list(images)
        self._contents = {image.image for image in listed}
        self._ids = {archive_id(image.image_id) for image in listed} - {None}
        self._lesions = {image.lesion for image in listed}

    def among(self, tested: Sequence[Image], namespace: Iterable[Image] = ()) -> list[str]:
        """Return the ids of ``tested`` images that are known, or whose lesion is.

        ``namespace``: all images of the dataset that the tested ones belong to; one common image makes lesion names
        comparable.
        """
        comparable = any(image.image in self._contents for image in (*tested, *namespace))
        return [image.image_id for image in tested if self._knows(image, comparable)]

    def _knows(self, image: Image, comparable: bool) -> bool:
        if image.image in self._contents or archive_id(image.image_id) in self._ids:
            return True
        named = comparable or ARCHIVE_LESION.fullmatch(image.lesion) is not None
        return named and image.lesion in self._lesions


def archive_id(image_id: str) -> str | None:
    """Return the ISIC archive's id in an image's name, or None."""
    match = ARCHIVE_IMAGE.search(image_id)
    return match.group().upper() if match else None


def fingerprints(dataset: Dataset) -> tuple[Image, ...]:
    """Return the images of a dataset with the hashes of their content; every file is read."""
    return images_of(dataset.fingerprint())


def split_leaks(real: Sequence[Image]) -> list[Leak]:
    """Return overlaps of the test split with training and validation."""
    test = [image for image in real if image.split == "test"]
    found = []
    for split, words in (("train", "training"), ("val", "the choice of weights")):
        known = Known(image for image in real if image.split == split)
        shared = known.among(test, real)
        found += [Leak("test", words, tuple(shared))] if shared else []
    return found


def synthetic_leaks(
    name: str,
    cases: Sequence[Image],
    provenance: Provenance,
    tests: Mapping[str, Sequence[Image]],
    real: Sequence[Image],
) -> list[Leak]:
    """Return overlaps of every test set with a synthetic set's own cases, and with what it was made from."""
    sources = [(f"synthetic set {name} itself", cases)]
    sources += [(f"{seen.by} of synthetic set {name}", seen.images) for seen in provenance.seen]
    leaks = []
    for by, images in sources:
        known = Known(images)
        for test, tested in tests.items():
            shared = known.among(tested, real if test == "test" else ())
            leaks += [Leak(test, by, tuple(shared))] if shared else []
    return leaks


def without(dataset: Dataset, known: Known, images: Sequence[Image] | None = None) -> Dataset:
    """Return the records of which ``known`` knows neither image nor lesion."""
    shared = set(known.among(images if images is not None else fingerprints(dataset)))
    return dataset.where(lambda record: record.image_id not in shared)


def refuse(leaks: Sequence[Leak], *, allow: bool) -> None:
    """Raise DataError where there is a leak, unless ``allow``."""
    if leaks and not allow:
        more = f"; and {len(leaks) - 1} more of this kind" if len(leaks) > 1 else ""
        raise DataError(f"{leaks[0]}{more}; mend the data, or go on with --allow-leak, which the report says in red")
