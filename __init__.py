"""lesionforge: dermoscopic images with lesion masks and labels from diffusion models, and proof of their worth.

For research only; nothing here is validated for clinical use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Annotator": "core.roles",
    "Batch": "core.batch",
    "Case": "core.run",
    "Chain": "core.chain",
    "Checkpoint": "core.config",
    "Context": "core.context",
    "Dataset": "core.dataset",
    "Exporter": "core.roles",
    "Extractor": "core.roles",
    "Filter": "core.roles",
    "Generator": "core.roles",
    "LesionforgeError": "core.errors",
    "Metric": "core.roles",
    "PluginConfig": "core.config",
    "Recipe": "core.recipe",
    "Record": "core.dataset",
    "Rejection": "core.batch",
    "Run": "core.run",
    "Source": "core.roles",
    "Trainer": "core.roles",
    "compare": "core.metrics",
    "hookimpl": "core.hookspecs",
    "load_dataset": "core.loading",
    "open_run": "core.run",
}

__all__ = [
    "Annotator",
    "Batch",
    "Case",
    "Chain",
    "Checkpoint",
    "Context",
    "Dataset",
    "Exporter",
    "Extractor",
    "Filter",
    "Generator",
    "LesionforgeError",
    "Metric",
    "PluginConfig",
    "Recipe",
    "Record",
    "Rejection",
    "Run",
    "Source",
    "Trainer",
    "__version__",
    "compare",
    "hookimpl",
    "load_dataset",
    "open_run",
]

if TYPE_CHECKING:
    from .core.batch import Batch, Rejection
    from .core.chain import Chain
    from .core.config import Checkpoint, PluginConfig
    from .core.context import Context
    from .core.dataset import Dataset, Record
    from .core.errors import LesionforgeError
    from .core.hookspecs import hookimpl
    from .core.loading import load_dataset
    from .core.metrics import compare
    from .core.recipe import Recipe
    from .core.roles import Annotator, Exporter, Extractor, Filter, Generator, Metric, Source, Trainer
    from .core.run import Case, Run, open_run


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
