"""Typed configurations of plugins: values flow from recipe, chain expression or ``--set`` into one frozen model."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, TypeVar, get_args

from pydantic import BaseModel, ConfigDict, ValidationError

from .errors import ConfigError

CHECKPOINT_MARK = "checkpoint"
Checkpoint = Annotated[str, CHECKPOINT_MARK]
"""A checkpoint folder or weights file: a path, ``train:NAME`` for the job NAME of the same recipe, ``builtin:NAME`` for
one that ships with the package, or a name on the hub where the plugin loads those. Its file hashes, and the revision of
what comes from the hub, go into the run's manifest."""
EXTRACTOR_MARK = "extractor"
ExtractorName = Annotated[str, EXTRACTOR_MARK]
"""The name of an extractor plugin, which must exist before any work begins."""
LONGEST_SHOWN = 200


class PluginConfig(BaseModel):
    """Base of every plugin's ``Config``: frozen, unknown keys refused, units in names or descriptions."""

    model_config = ConfigDict(extra="forbid", frozen=True, validate_default=True, protected_namespaces=())


C = TypeVar("C", bound=PluginConfig)


def build_config(model: type[C], values: Mapping[str, Any], *, where: str) -> C:
    """Validate ``values`` into ``model``.

    Raises:
        ConfigError: one line that names ``where``, the key, and what is allowed, for the first few problems.
    """
    try:
        return model.model_validate(dict(values))
    except ValidationError as error:
        problems = "; ".join(_problem(model, detail) for detail in error.errors(include_url=False)[:3])
        raise ConfigError(f"{where}: {problems}") from None


def _problem(model: type[PluginConfig], detail: Any) -> str:
    key = ".".join(str(part) for part in detail["loc"]) or "value"
    if detail["type"] == "extra_forbidden":
        return f"unknown key {key!r}; allowed are {', '.join(model.model_fields) or 'none'}"
    if detail["type"] == "missing":
        described = model.model_fields.get(str(detail["loc"][0]))
        return f"key {key!r} is required" + (f" ({described.description})" if described else "")
    if not detail["loc"]:
        return detail["msg"].removeprefix("Value error, ")
    return f"{key} = {_shown(detail['input'])}: {detail['msg'][:1].lower()}{detail['msg'][1:]}"


def _shown(value: Any) -> str:
    try:
        shown = repr(value)
    except (ValueError, RecursionError):  # Python writes no integer of more than 4,300 digits
        return f"this {type(value).__name__}"
    return shown if len(shown) <= LONGEST_SHOWN else f"{shown[:LONGEST_SHOWN]}..."


def checkpoint_fields(model: type[PluginConfig]) -> list[str]:
    """Return the names of the fields that are annotated as :data:`Checkpoint`, optional ones included."""
    return _marked_fields(model, CHECKPOINT_MARK)


def extractor_fields(model: type[PluginConfig]) -> list[str]:
    """Return the names of the fields that are annotated as :data:`ExtractorName`, optional ones included."""
    return _marked_fields(model, EXTRACTOR_MARK)


def _marked_fields(model: type[PluginConfig], mark: str) -> list[str]:
    def marked(annotation: Any, metadata: list[Any]) -> bool:
        if mark in metadata:
            return True
        return any(mark in getattr(part, "__metadata__", ()) for part in get_args(annotation))

    return [name for name, field in model.model_fields.items() if marked(field.annotation, field.metadata)]
