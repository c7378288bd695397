"""What each key of a plugin's configuration takes, in words."""

from __future__ import annotations

import types
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, Literal, Union, get_args, get_origin

if TYPE_CHECKING:
    from pydantic.fields import FieldInfo

    from ..core.config import PluginConfig

BOUNDS = {"ge": "≥", "gt": ">", "le": "≤", "lt": "<"}
LARGE = 10**6
NAMES = {int: "integer", float: "number", str: "text", bool: "true or false"}


@dataclass(frozen=True)
class Key:
    """One key: its name, the values it takes, its default and what it means."""

    name: str
    kind: str
    default: str
    description: str


def described_keys(config: type[PluginConfig]) -> list[Key]:
    """Return all keys of a configuration in the order of their definition."""
    return [
        Key(name, _kind(field), _default(field), field.description or "") for name, field in config.model_fields.items()
    ]


def _kind(field: FieldInfo) -> str:
    if "checkpoint" in field.metadata:
        return "checkpoint"
    limits = {name: getattr(mark, name) for mark in field.metadata for name in BOUNDS if _limits(mark, name)}
    name = _type_name(field.annotation)
    if {"ge", "le"} <= limits.keys():
        return f"{name} from {_written(limits['ge'])} to {_written(limits['le'])}"
    return " ".join([name, ", ".join(f"{BOUNDS[bound]} {_written(limit)}" for bound, limit in limits.items())]).strip()


def _written(limit: float) -> str:
    if isinstance(limit, int) and limit > LARGE and limit.bit_count() == 1:
        return f"2^{limit.bit_length() - 1}"
    return f"{limit:g}" if abs(limit) < LARGE else f"{limit:,}"


def _limits(mark: Any, name: str) -> bool:
    return isinstance(getattr(mark, name, None), int | float)


def _type_name(annotation: Any) -> str:
    origin, arguments = get_origin(annotation), get_args(annotation)
    if origin is Literal:
        return " | ".join(str(choice) for choice in arguments)
    if origin is Annotated:
        return "checkpoint" if "checkpoint" in arguments[1:] else _type_name(arguments[0])
    if origin in (Union, types.UnionType):
        return " or ".join(_type_name(part) for part in arguments if part is not types.NoneType)
    if origin in (list, tuple, set, frozenset):
        parts = [_type_name(part) for part in arguments if part is not Ellipsis]
        return f"[{', '.join(parts)}]" if origin is tuple and Ellipsis not in arguments else f"list of {parts[0]}"
    return NAMES.get(annotation, getattr(annotation, "__name__", str(annotation)))


def _default(field: FieldInfo) -> str:
    from ..core.chain import write_value
    from ..core.errors import ConfigError

    if field.is_required():
        return "required"
    default = field.get_default(call_default_factory=True)
    if default is None:
        return ""
    try:
        return write_value(default)
    except ConfigError:
        return str(default)
