"""From the words on the command line to a dataset: a source's specification, or a run folder."""

from __future__ import annotations

from typing import TYPE_CHECKING

from .recipe_argument import is_run_folder

if TYPE_CHECKING:
    from ..core.dataset import Dataset


def load(spec: str, split: str | None, *, size: int | None = None) -> Dataset:
    """Return the data that ``spec`` names, or the accepted cases of the run that it is the folder of.

    Raises:
        DataError: there are none, or none in ``split``.
    """
    from ..core.errors import DataError
    from ..core.loading import load_dataset
    from ..core.run import Run

    if not is_run_folder(spec):
        return load_dataset(spec, split=split, size=size)
    dataset = Run(spec).dataset()
    if not len(dataset):
        raise DataError(f"run {spec} has no accepted case with an image")
    return (dataset.split(split) if split else dataset).resized(size)
