"""Writes a dataset, or the accepted cases of a run, in the layout of an exporter."""

from __future__ import annotations

from pathlib import Path

from .chain import parse_call
from .dataset import Dataset
from .durable import new_folder, require_empty
from .errors import ConfigError
from .guarding import guarded
from .registry import Registry, default_registry


def export_dataset(dataset: Dataset, exporter: str, output: str | Path, *, registry: Registry | None = None) -> Path:
    """Write ``dataset`` into the new folder ``output``, which appears only when it is whole; return its path.

    Args:
        exporter: ``name`` or ``name(key=value)`` of an exporter.

    Raises:
        ConfigError: the expression is malformed, or an option unknown or out of range.
        PluginError: no exporter has that name.
        StoreError: ``output`` is not empty or cannot be written.
        PluginFailure: the exporter raised.
    """

    name, values, location = parse_call(exporter)
    if location is not None:
        raise ConfigError(f"{exporter!r}: an exporter is written as name or name(key=value), without a location")
    plugin = (registry or default_registry()).create("exporter", name, values, where="exporter")
    output = Path(output)
    require_empty(output)
    with new_folder(output) as folder, guarded(f"exporter {name} failed"):
        plugin.export(dataset, folder)
    return output
