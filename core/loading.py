"""From a data specification such as ``isic2018:PATH`` to a dataset."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from .errors import ConfigError, DataError, first_line
from .guarding import guarded

if TYPE_CHECKING:
    from .dataset import Dataset
    from .recipe import Recipe
    from .registry import Registry


def load_dataset(
    spec: str, *, split: str | None = None, size: int | None = None, registry: Registry | None = None
) -> Dataset:
    """Load the dataset that ``spec`` names; pixels are decoded when they are asked for.

    Args:
        spec: ``SOURCE:LOCATION`` or ``SOURCE(key=value):LOCATION``, as in ``isic2018(fractions=[0.8, 0.1, 0.1]):PATH``.
            A source that needs no location (``phantom``) is named alone.
        split: ``train``, ``val`` or ``test``; None for all records.
        size: edge in pixels to resize to, see :class:`Dataset`; None keeps each image's own.
        registry: where the source is looked up, by default everything installed.

    Raises:
        ConfigError: the specification is malformed, or an option unknown or out of range.
        PluginError: no source has that name.
        DataError: the data are missing or malformed, or have no such split.
    """
    from .registry import default_registry

    if size is not None and size < 1:
        raise ConfigError(f"size must be at least 1 pixel, not {size}")
    name, values, location = _parts(spec)
    source = (registry or default_registry()).create("source", name, values, where="data")
    with guarded(f"source {name} failed on {spec}"):
        dataset: Dataset = source.load(location)
    if not len(dataset):
        raise DataError(f"{spec} holds no images")
    return (dataset if split is None else dataset.split(split)).resized(size)


def _parts(spec: str) -> tuple[str, dict[str, Any], str | None]:
    from .chain import parse_call

    try:
        return parse_call(spec)
    except ConfigError as error:
        raise ConfigError(f"data are named as SOURCE:PATH or SOURCE(key=value):PATH, not {spec!r}: {error}") from None


def with_source(recipe: Recipe, data: str | None) -> Recipe:
    """Return the recipe on ``data``, or on its own source: by an absolute path, so that any folder can resume it."""
    source = recipe.data.source if data is None else data
    return recipe if source is None else recipe.with_value("data.source", absolute_source(source))


def absolute_source(spec: str) -> str:
    """Return a data specification whose location, if it has one, is an absolute path.

    Raises:
        ConfigError: the path is not UTF-8, so that no recipe could name it.
    """
    _, _, location = _parts(spec)
    if location is None:
        return spec
    try:
        path = str(Path(location).expanduser().absolute())
        path.encode()
    except (RuntimeError, UnicodeEncodeError) as error:  # no home folder; or a name in another encoding
        raise ConfigError(f"data {spec!r} cannot be found again by this name: {first_line(error)}") from None
    return spec.rstrip().removesuffix(location) + path
