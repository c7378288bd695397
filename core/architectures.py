"""Networks by name: from ``dff-unet(width=8)`` to the architecture plugin that builds it."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from .chain import StageSpec, parse_call
from .errors import ConfigError
from .registry import PluginEntry, Registry
from .roles import Architecture

if TYPE_CHECKING:
    from torch import nn


def find_architecture(
    expression: str, registry: Registry, *, given: Mapping[str, Any] | None = None
) -> tuple[PluginEntry, Architecture]:
    """Return the plugin that ``expression`` names, and an instance of it with its values, not yet built.

    Args:
        expression: ``name`` or ``name(key=value, ...)``.
        given: further values for it.

    Raises:
        ConfigError: the expression is malformed, or a value unknown, not allowed or given twice.
        PluginError: no usable architecture has that name.
    """
    name, values, location = parse_call(expression)
    if location is not None:
        raise ConfigError(f"architecture = {expression!r}: write NAME or NAME(key=value, ...)")
    entry = registry.find(name, Architecture.role)
    for key in given or {}:
        if key in values:
            raise ConfigError(f"{key} is given twice: in architecture = {expression!r} and beside it")
        if key not in entry.plugin.Config.model_fields:
            others = registry.entries(Architecture.role)
            fitting = [other.name for other in others if key in other.plugin.Config.model_fields]
            raise ConfigError(f"{key} applies to {', '.join(fitting) or 'no architecture'}, not to {name}")
    return entry, registry.create(Architecture.role, name, {**values, **(given or {})}, where="architecture")


def written_architecture(architecture: Architecture) -> str:
    """Return the expression that gives ``architecture`` again, with every default written out."""
    return str(StageSpec(architecture.name, architecture.config.model_dump(mode="json", exclude_none=True)))


def parameter_count(network: nn.Module) -> int:
    """Return the number of trainable parameters."""
    return sum(parameter.numel() for parameter in network.parameters() if parameter.requires_grad)


def default_parameter_count(entry: PluginEntry) -> int | None:
    """Return the number of trainable parameters of an architecture with its defaults; None where some value has none.

    Builds the network on the CPU and leaves torch's random state as it was.
    """
    import torch

    if any(field.is_required() for field in entry.plugin.Config.model_fields.values()):
        return None
    architecture: Any = entry.plugin()
    with torch.random.fork_rng(devices=[]):
        return parameter_count(architecture.build())
