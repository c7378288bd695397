"""The layout of a recipe file: its tables, their settings, and how they are read and written."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from .chain import StageSpec, write_key, write_value
from .config import PluginConfig
from .errors import ConfigError
from .seeding import SEED_LIMIT


class DataSettings(PluginConfig):
    """Which real data a recipe works on."""

    source: str | None = Field(None, description="data specification such as isic2018:PATH; --data replaces it")
    size: int | None = Field(None, ge=8, le=4096, description="edge in pixels that images are resized to")
    limit: int | None = Field(None, ge=1, description="use only the first cases of the training split")


class SynthesisSettings(PluginConfig):
    """How the chain is run."""

    count: int = Field(64, ge=1, description="number of cases to make")
    batch_size: int = Field(16, ge=1, description="cases that networks see at once; part of a case's identity")
    shard_size: int = Field(64, ge=1, description="cases committed to disk at once")
    precision: Literal["auto", "fp32", "bf16"] = Field(
        "auto", description="arithmetic of networks, in the chain and in the recipe's trainings"
    )


class RecipeFile(PluginConfig):
    """All that a recipe file may hold; values of trainings, stages and metrics are those of their plugins."""

    name: str = "recipe"
    description: str = ""
    seed: int = Field(0, ge=0, lt=SEED_LIMIT)
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    data: DataSettings = Field(default_factory=lambda: DataSettings.model_validate({}))
    synthesis: SynthesisSettings | None = None
    train: dict[str, dict[str, Any]] = Field(default_factory=dict)
    stage: list[dict[str, Any]] = Field(default_factory=list)
    metric: list[dict[str, Any]] = Field(default_factory=list)


def written_values(values: Mapping[str, Any]) -> list[str]:
    """Return one line ``key = value`` for every value that is not None."""
    return [f"{write_key(key)} = {write_value(value)}" for key, value in values.items() if value is not None]


def written_call(table: str, call: StageSpec) -> list[str]:
    """Return the lines of one entry of the array ``table``, such as ``[[stage]]``."""
    return ["", f"[[{table}]]", f"use = {write_value(call.plugin)}", *written_values(call.values)]


def read_call(table: str, position: int, values: Mapping[str, Any], where: str) -> StageSpec:
    """Return what one entry of the array ``table`` names, see :func:`used_plugin`."""
    plugin = used_plugin(values, f"{where}: [[{table}]] number {position + 1}")
    return StageSpec(plugin, {key: value for key, value in values.items() if key != "use"})


def used_plugin(values: Mapping[str, Any], where: str) -> str:
    """Return the plugin that a table names; raises ConfigError, which begins with ``where``, where it names none."""
    plugin = values.get("use")
    if not isinstance(plugin, str) or not plugin:
        raise ConfigError(f"{where}: key 'use' is required and names the plugin, for example use = \"ddpm\"")
    return plugin
