"""Compares two datasets with metric plugins: what was measured, on how many images, and what was refused and why."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any, TypeVar

from .chain import parse_call
from .context import Context, choose_device
from .errors import CheckpointError, ConfigError, DataError, PluginError, PluginFailure
from .guarding import guarded
from .registry import Registry, default_registry

if TYPE_CHECKING:
    from .dataset import Dataset
    from .roles import Metric

T = TypeVar("T")


@dataclass(frozen=True)
class Measurement:
    """One number that compares two datasets.

    Attributes:
        name: what the number may be called, with the extractor where that is part of its meaning.
        value: the number.
        low, high: its 95 % interval, None where none was computed.
        images: images of the first and of the second dataset that took part.
        groups: lesions among them, the units of resampling.
        pairs: pairs of images that were averaged, None for a distance between whole sets.
        conventions: everything else that the number depends on: data range, extractor, hash of its weights.
    """

    name: str
    value: float
    low: float | None
    high: float | None
    images: tuple[int, int]
    groups: tuple[int, int]
    pairs: int | None
    conventions: Mapping[str, Any]


@dataclass(frozen=True)
class Refusal:
    """A metric that does not fit these data or this machine, and why."""

    metric: str
    reason: str


@dataclass(frozen=True)
class Comparison:
    """Two datasets under comparison.

    Attributes:
        first, second: the datasets.
        context: device, seed of pairs and resamples, and progress.
    """

    first: Dataset
    second: Dataset
    context: Context
    _shared: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)
    _lasting: dict[tuple[Any, ...], Any] = field(default_factory=dict, repr=False)

    def shared(self, key: tuple[Any, ...], make: Callable[[], T], *, of_second: bool = True) -> T:
        """Return what ``make`` returned when ``key`` was first asked for, such as features that two metrics need.

        Args:
            of_second: False where the second dataset takes no part in it; then :meth:`with_second` keeps it.
        """
        known = self._shared if of_second else self._lasting
        if key not in known:
            known[key] = make()
        return known[key]

    def with_second(self, second: Dataset) -> Comparison:
        """Return the comparison of the first dataset with ``second``."""
        return replace(self, second=second, _shared={})


@dataclass(frozen=True)
class Results:
    """What :func:`compare` found, in the order of the metrics.

    Attributes:
        datasets: name, number of images, of lesions, and whether they are phantoms, of both.
        measured: the numbers.
        refused: metrics without a number.
    """

    datasets: tuple[Mapping[str, Any], Mapping[str, Any]]
    measured: tuple[Measurement, ...]
    refused: tuple[Refusal, ...]

    def as_dict(self) -> dict[str, Any]:
        """Return all of it as values that JSON can hold."""
        return dataclasses.asdict(self)


def compare(
    first: Dataset,
    second: Dataset,
    metrics: Sequence[str] = (),
    *,
    device: str = "auto",
    seed: int = 0,
    progress: Callable[[str, int, int], None] | None = None,
    registry: Registry | None = None,
) -> Results:
    """Measure how alike two datasets are.

    Args:
        metrics: ``name`` or ``name(key=value)`` of metrics. None named: all that need no settings, those of paired
            images only where both datasets share image ids.
        seed: seed of random pairs and of resamples.
        progress: called with (metric, done, total).

    Raises:
        ConfigError: a metric's expression is malformed, or a setting unknown or out of range.
        PluginError: no metric has that name.
        PluginFailure: a metric raised what is no refusal.
    """
    registry = registry or default_registry()
    chosen = [_created(expression, registry) for expression in metrics or _fitting(first, second, registry)]
    context = Context(choose_device(device), seed=seed, registry=registry)
    comparison = Comparison(first, second, context)
    measured, refused = [], []
    for name, metric in chosen:
        found = measure(name, metric, comparison, progress)
        (measured if isinstance(found, Measurement) else refused).append(found)
    return Results((_described(first), _described(second)), tuple(measured), tuple(refused))


def why_not(
    first: Dataset, second: Dataset, metric: str, *, device: str = "auto", registry: Registry | None = None
) -> str | None:
    """Return why ``metric`` could not be measured of datasets of these sizes, as far as it knows; None if it could.

    ``second`` may be a stand-in, see :meth:`lesionforge.Metric.check`. Raises what :func:`compare` does.
    """
    registry = registry or default_registry()
    expression, plugin = _created(metric, registry)
    comparison = Comparison(first, second, Context(choose_device(device), name=plugin.name, registry=registry))

    def work() -> None:
        plugin.setup(comparison.context)
        plugin.check(comparison)

    return _refused(expression, work)[1] or None


def _created(expression: str, registry: Registry) -> tuple[str, Metric]:
    name, values, location = parse_call(expression)
    if location is not None:
        raise ConfigError(f"{expression!r}: a metric is written as name or name(key=value), without a location")
    return expression, registry.create("metric", name, values, where="metric")


def _fitting(first: Dataset, second: Dataset, registry: Registry) -> list[str]:
    paired = not set(first.ids).isdisjoint(second.ids)
    names = []
    for entry in registry.entries("metric"):
        plugin: Any = entry.plugin
        needs_values = any(key.is_required() for key in plugin.Config.model_fields.values())
        if not needs_values and (paired or not plugin.needs_pairs):
            names.append(entry.name)
    return names


def measure(
    name: str, metric: Metric, comparison: Comparison, progress: Callable[[str, int, int], None] | None = None
) -> Measurement | Refusal:
    """Return what ``metric`` finds, or why it refuses; ``name`` is what to call it in progress and errors.

    Raises:
        PluginFailure: it raised what is no refusal.
    """

    def show(done: int, total: int, _: Mapping[str, Any]) -> None:
        if progress is not None:
            progress(name, done, total)

    context = replace(comparison.context, name=metric.name, progress=show)

    def work() -> Measurement:
        metric.setup(context)
        return metric.measure(replace(comparison, context=context))

    found, reason = _refused(name, work)
    return Refusal(name, reason) if found is None else found


def _refused(metric: str, work: Callable[[], T]) -> tuple[T | None, str]:
    """Return what ``work`` does and no reason, or nothing and the reason why it was refused."""
    try:
        with guarded(f"metric {metric} failed"):
            return work(), ""
    except PluginFailure:
        raise
    except (CheckpointError, ConfigError, DataError, PluginError) as error:
        return None, str(error)


def _described(dataset: Dataset) -> dict[str, Any]:
    lesions = len({record.lesion for record in dataset.records})
    return {"name": dataset.name, "images": len(dataset), "lesions": lesions, "phantom": dataset.phantom}
