"""lesionforge: dermoscopic images with lesion masks and labels from diffusion models, and proof of their worth.

For research only; nothing here is validated for clinical use.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.1.0"

_PUBLIC = {
    "Annotator": "core.roles",
    "Architecture": "core.roles",
    "Batch": "core.batch",
    "Case": "core.run",
    "Chain": "core.chain",
    "Checkpoint": "core.config",
    "CheckpointError": "core.errors",
    "ConfigError": "core.errors",
    "Context": "core.context",
    "DataError": "core.errors",
    "Dataset": "core.dataset",
    "Exporter": "core.roles",
    "Extractor": "core.roles",
    "Filter": "core.roles",
    "Generator": "core.roles",
    "LesionforgeError": "core.errors",
    "Metric": "core.roles",
    "PluginConfig": "core.config",
    "PluginError": "core.errors",
    "Recipe": "core.recipe",
    "Record": "core.dataset",
    "Rejection": "core.batch",
    "Run": "core.run",
    "Snapshot": "core.training",
    "Source": "core.roles",
    "Study": "core.study.recipe",
    "Trainer": "core.roles",
    "TrainingLoop": "core.training",
    "Tuning": "core.tuning.results",
    "Validation": "core.training",
    "compare": "core.metrics",
    "cosine_rate": "core.training",
    "explain": "core.explaining",
    "hookimpl": "core.hookspecs",
    "load_dataset": "core.loading",
    "open_run": "core.run",
    "tune": "core.tuning.tuner",
    "write_bytes": "core.durable",
    "write_text": "core.durable",
}

__all__ = [
    "Annotator",
    "Architecture",
    "Batch",
    "Case",
    "Chain",
    "Checkpoint",
    "CheckpointError",
    "ConfigError",
    "Context",
    "DataError",
    "Dataset",
    "Exporter",
    "Extractor",
    "Filter",
    "Generator",
    "LesionforgeError",
    "Metric",
    "PluginConfig",
    "PluginError",
    "Recipe",
    "Record",
    "Rejection",
    "Run",
    "Snapshot",
    "Source",
    "Study",
    "Trainer",
    "TrainingLoop",
    "Tuning",
    "Validation",
    "__version__",
    "compare",
    "cosine_rate",
    "explain",
    "hookimpl",
    "load_dataset",
    "open_run",
    "tune",
    "write_bytes",
    "write_text",
]

if TYPE_CHECKING:
    from .core.batch import Batch, Rejection
    from .core.chain import Chain
    from .core.config import Checkpoint, PluginConfig
    from .core.context import Context
    from .core.dataset import Dataset, Record
    from .core.durable import write_bytes, write_text
    from .core.errors import CheckpointError, ConfigError, DataError, LesionforgeError, PluginError
    from .core.explaining import explain
    from .core.hookspecs import hookimpl
    from .core.loading import load_dataset
    from .core.metrics import compare
    from .core.recipe import Recipe
    from .core.roles import Annotator, Architecture, Exporter, Extractor, Filter, Generator, Metric, Source, Trainer
    from .core.run import Case, Run, open_run
    from .core.study.recipe import Study
    from .core.training import Snapshot, TrainingLoop, Validation, cosine_rate
    from .core.tuning.results import Tuning
    from .core.tuning.tuner import tune


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    value = getattr(importlib.import_module(f".{_PUBLIC[name]}", __name__), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    return sorted(__all__)
