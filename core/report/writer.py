"""Gathers what a run folder holds and writes it as one page."""

from __future__ import annotations

import itertools
from pathlib import Path
from typing import Any

from ... import __version__
from ..dataset import Dataset
from ..durable import made_folder, write_text
from ..run import Run
from .census import take_census
from .comparison import CAUTION, classification_jobs, compare_jobs, further_metrics, segmentation_jobs
from .environment import page_environment
from .gallery import kept_pictures, real_pictures, rejected_rows, soft_mask_pictures
from .heat_maps import heat_maps_source
from .likeness import likeness_of
from .overview import facts_of, is_phantom, job_seconds, reference_name, stage_table, tiles, title_of
from .scores import score_rows
from .shapes import compare_shapes
from .statistics import RESAMPLES
from .training import job_views

PAGE = "index.html"


def write_report(run: Run, *, real: Dataset | None = None) -> Path:
    """Write ``report/index.html`` of a run, finished or interrupted, and return its path.

    The page is one file without scripts or outside requests. It is written whole or not at all, and the same run
    folder gives the same bytes.

    Args:
        real: the real data of the run, for pictures, mask statistics and lesion groups. Of data with splits, pictures
            and statistics come from the training split.

    Raises:
        StoreError: the folder cannot be written, or a file of the run is damaged.
        DataError: an image of the run or of ``real`` cannot be decoded.
    """
    page = render(run, real)
    path = made_folder(run.store.report) / PAGE
    write_text(path, page)
    return path


def render(run: Run, real: Dataset | None) -> str:
    """Return the page of ``run`` as HTML text, see :func:`write_report`."""
    return page_environment().get_template("template.html").render(_content(run, real))


def _content(run: Run, real: Dataset | None) -> dict[str, Any]:
    census, jobs = take_census(run), job_views(run)
    seen = _training_part(real)
    phantom = is_phantom(run, jobs, real)
    facts = facts_of(run, jobs)
    noun, reference = "phantom" if phantom else "image", reference_name(facts, real)
    segmentation = segmentation_jobs(jobs)
    return {
        "run": run,
        "recipe": run.recipe,
        "title": title_of(run),
        "synthesis": run.recipe.synthesis,
        "recipe_text": run.store.recipe.read_text(encoding="utf-8"),
        "version": __version__,
        "phantom": phantom,
        "census": census,
        "tiles": tiles(run, census, jobs),
        "stages": stage_table(run),
        "facts": facts,
        "reference": reference,
        "kept": kept_pictures(census.accepted.items, noun),
        "soft_masks": soft_mask_pictures(census.accepted.items, noun),
        "rejected": rejected_rows(census.reasons, noun),
        "real": seen,
        "real_pictures": real_pictures(seen, f"{reference} image") if seen else [],
        "scores": score_rows(run, census, reference),
        "likeness": likeness_of(run),
        "shapes": compare_shapes(census.accepted.items, seen, reference),
        "jobs": jobs,
        "job_seconds": job_seconds(run),
        "segmentation": segmentation,
        "classification": classification_jobs(jobs),
        "heat_maps": heat_maps_source(run),
        "others": [view for view in jobs if view.metrics and view not in segmentation],
        "comparisons": compare_jobs(jobs, real),
        "caution": CAUTION,
        "resamples": RESAMPLES,
        "further_metrics": further_metrics,
        "next_figure": itertools.count(1).__next__,
        "next_table": itertools.count(1).__next__,
    }


def _training_part(real: Dataset | None) -> Dataset | None:
    if real is None or not len(real):
        return None
    return real.split("train") if any(record.split == "train" for record in real.records) else real
