"""How alike a run's accepted cases and real images are, by the recipe's metrics, with real images as the yardstick.

The first dataset is always the real training split. The second is the accepted cases, and for the yardstick the real
validation split: what other real images get. The test split takes no part.
"""

from __future__ import annotations

import dataclasses
import json
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .context import Context
from .durable import write_text
from .execution import resolve_checkpoints
from .manifest import canonical_json, checkpoint_hashes, data_facts, finite, text_hash
from .metrics import Comparison, Refusal, measure

if TYPE_CHECKING:
    import torch

    from .chain import StageSpec
    from .dataset import Dataset
    from .registry import Registry
    from .roles import Metric
    from .run import Run

NO_IMAGES = "no accepted case has an image"


def measure_likeness(run: Run, real: Dataset, *, device: torch.device, registry: Registry) -> None:
    """Measure the metrics of the run's recipe, and keep them in the run folder, see :meth:`Run.likeness`.

    A metric is measured again only where images, checkpoints or its plugin have changed, or where it refused, since the
    reason may be gone.

    Args:
        real: the run's real data, with splits.

    Raises:
        PluginFailure: a metric raised what is no refusal.
        StoreError: the file cannot be read or written.
    """
    started, known = time.time(), {row["inputs"]: row for row in run.likeness() or () if not _refused(row)}
    sets = _datasets(run, real)
    facts = {name: data_facts(dataset) for name, dataset in sets.items()}
    context = Context(device, seed=run.recipe.seed, registry=registry)
    pair = Comparison(sets["train"], sets["val"], context)
    comparisons = {name: pair.with_second(sets[name]) for name in ("val", "synthetic") if sets[name]}
    rows = []
    for spec in run.recipe.metrics:
        values = resolve_checkpoints(spec.values, registry.find(spec.plugin, "metric").plugin, run.store.jobs)
        metric: Metric = registry.create("metric", spec.plugin, values, where="metric")
        inputs = _inputs(spec, metric, facts, run.recipe.seed, registry)
        rows.append(known.get(inputs) or {"inputs": inputs, **_row(spec, metric, comparisons, registry)})
    if rows != run.likeness():
        write_text(run.store.metrics, canonical_json(rows))
        run.store.append_log({"event": "metrics", "start": started, "seconds": time.time() - started})


def _datasets(run: Run, real: Dataset) -> dict[str, Dataset]:
    """Return real training and validation cases and the accepted ones, at one size; all but the first may be empty."""
    validation = real.where(lambda record: record.split == "val")
    return {"train": real.split("train"), "val": validation, "synthetic": run.dataset().resized(real.size)}


def _inputs(spec: StageSpec, metric: Metric, facts: Mapping[str, Any], seed: int, registry: Registry) -> str:
    """Return one hash of everything that the metric's numbers depend on."""
    entry = registry.find(spec.plugin, "metric")
    plugin = [entry.distribution, entry.version]
    checkpoints = checkpoint_hashes(metric, where=f"metric {spec.plugin}")
    known = {"metric": str(spec), "plugin": plugin, "checkpoints": checkpoints, "data": facts, "seed": seed}
    return text_hash(canonical_json(known))


def _row(spec: StageSpec, metric: Metric, comparisons: Mapping[str, Comparison], registry: Registry) -> dict[str, Any]:
    def progress(name: str, done: int, total: int) -> None:
        registry.observers.stage_progress(stage=f"metric {name}", done=done, total=total, metrics={})

    def found(comparison: Comparison | None) -> dict[str, Any] | None:
        return None if comparison is None else _as_json(measure(spec.plugin, metric, comparison, progress))

    yardstick = None if metric.needs_pairs else found(comparisons.get("val"))
    synthetic = found(comparisons.get("synthetic")) or {"reason": NO_IMAGES}
    return {"metric": str(spec), "yardstick": yardstick, "synthetic": synthetic}


def _as_json(found: Any) -> dict[str, Any]:
    """Return a measurement's fields, None for numbers that JSON cannot hold; of a refusal the reason."""
    if isinstance(found, Refusal):
        return {"reason": found.reason}
    values = dataclasses.asdict(found)
    numbers = {key: finite(values[key]) for key in ("value", "low", "high") if values[key] is not None}
    return json.loads(json.dumps({**values, **numbers}, default=str))


def _refused(row: Mapping[str, Any]) -> bool:
    return any("reason" in (row[name] or ()) for name in ("yardstick", "synthetic"))
