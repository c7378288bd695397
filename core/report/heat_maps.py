"""Where the classifiers of a run look: one sheet, drawn when asked for, which every later report of the run shows."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path

from ..dataset import Dataset
from ..durable import made_folder, write_bytes
from ..errors import ConfigError
from ..explaining import explain
from ..heat_sheet import heat_sheet
from ..run import Run
from .comparison import classification_jobs
from .gallery import sheet_source
from .training import job_views

SHEET = "heat-maps.png"
CASES = 6
TILE = 128


def draw_heat_maps(
    run: Run, real: Dataset, *, device: str = "auto", progress: Callable[[int, int], None] | None = None
) -> Path:
    """Draw where the run's classifiers look on the same test images of ``real``, and return the sheet's path.

    Args:
        progress: called with (done, total).

    Raises:
        ConfigError: no finished training of the run is a classifier.
        DataError: ``real`` has no test split, or an image of it cannot be decoded.
        StoreError: the report's folder cannot be written.
    """
    jobs = classification_jobs(job_views(run))
    if not jobs:
        raise ConfigError(f"no finished training of {run.path} is a classifier, so there is nothing to explain")
    folders = [str(view.folder) for view in jobs]
    found = explain(folders, real.split("test"), count=CASES, device=device, progress=progress)
    picture = io.BytesIO()
    heat_sheet(found, tile=TILE).save(picture, format="PNG")
    sheet = made_folder(run.store.report) / SHEET
    write_bytes(sheet, picture.getvalue())
    return sheet


def heat_maps_source(run: Run) -> str | None:
    """Return the sheet of :func:`draw_heat_maps` as a data URI, None where none was drawn."""
    sheet = run.store.report / SHEET
    return sheet_source(sheet) if sheet.exists() else None
