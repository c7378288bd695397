"""What filters and annotators measured on the run's cases, against the real set's own values."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from safetensors import SafetensorError, safe_open

from ..errors import StoreError
from ..run import Run
from .census import Census
from .charts import Chart, Layer, histogram
from .statistics import Numbers, finite, kolmogorov_smirnov, median

REFERENCE = "reference/"


@dataclass(frozen=True)
class Fit:
    """What the fitted state of one stage says about one score: the real images' own values and the limit."""

    measure: str
    reference: Numbers
    threshold: float | None


@dataclass(frozen=True)
class ScoreRow:
    """One score: how many values there are, their medians, the limits, and how far the run lies from the real set.

    Attributes:
        gap: Kolmogorov-Smirnov statistic of all the run's cases against the real ones, None without real values.
    """

    name: str
    measure: str
    kept: Numbers
    rejected: Numbers
    real: Numbers
    limits: Sequence[float]
    gap: float | None
    chart: Chart

    @property
    def medians(self) -> tuple[float | None, float | None, float | None]:
        """Medians of accepted, rejected and real cases."""
        return median(self.kept), median(self.rejected), median(self.real)


def score_rows(run: Run, census: Census, reference: str) -> list[ScoreRow]:
    """Return one row a score that was measured, from an even sample of the cases; ``reference`` names the real set.

    Raises:
        StoreError: a fitted state is damaged.
    """
    fits = read_fits(run.store.fitted)
    names = sorted({name for scores, _ in census.scored.items for name in scores})
    rows = (_score_row(name, census, fits.get(name), reference) for name in names)
    return [row for row in rows if row is not None]


def read_fits(folder: Path) -> dict[str, Fit]:
    """Return what the fitted stages hold by score; large tensors in the same files are left unread.

    Raises:
        StoreError: a file is damaged.
    """
    fits = {}
    for file in sorted(folder.glob("*.safetensors")):
        try:
            with safe_open(file, framework="np") as state:
                fits |= _fits_of(state)
        except (SafetensorError, OSError) as error:
            raise StoreError(f"fitted state {file} is damaged: {error}; delete it to fit again") from error
    return fits


def _fits_of(state: safe_open) -> dict[str, Fit]:
    names = set(state.keys())
    scores = [name.removeprefix(REFERENCE) for name in sorted(names) if name.startswith(REFERENCE)]
    measure = bytes(state.get_tensor("measure").tolist()).decode() if "measure" in names else ""
    limit = float(state.get_tensor("threshold")) if "threshold" in names and len(scores) == 1 else None
    return {score: Fit(measure, finite(state.get_tensor(REFERENCE + score)), limit) for score in scores}


def _score_row(name: str, census: Census, fit: Fit | None, reference: str) -> ScoreRow | None:
    kept, rejected = (_values(name, census, side) for side in (True, False))
    if not len(kept) + len(rejected):
        return None
    real = fit.reference if fit else np.empty(0)
    limits = [fit.threshold] if fit and fit.threshold is not None else census.limits(name)
    layers = [Layer("accepted", "kept", kept), Layer("rejected", "rejected", rejected)]
    gap = kolmogorov_smirnov(np.concatenate([kept, rejected]), real) if len(real) else None
    outline = Layer(reference, "reference", real) if len(real) else None
    chart = histogram(name, layers, outline, limits=limits[:4])
    return ScoreRow(name, fit.measure if fit else "", kept, rejected, real, limits, gap, chart)


def _values(name: str, census: Census, kept: bool) -> Numbers:
    found = (scores.get(name) for scores, was_kept in census.scored.items if was_kept is kept)
    return finite([value for value in found if value is not None])
