"""Chains of stages: the expression ``name(key=value) | name``, and what it means."""

from __future__ import annotations

import json
import math
import re
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from .config import PluginConfig
from .errors import ConfigError
from .registry import Registry, default_registry
from .roles import STAGE_ROLES, Stage

if TYPE_CHECKING:
    from pathlib import Path

    from .dataset import Dataset
    from .run import Run

_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]*")
_KEY = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")


@dataclass(frozen=True)
class StageSpec:
    """One stage or metric as the user wrote it: plugin name and given values, not yet validated."""

    plugin: str
    values: Mapping[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        arguments = ", ".join(f"{key}={write_value(value)}" for key, value in self.values.items())
        return f"{self.plugin}({arguments})" if arguments else self.plugin


@dataclass(frozen=True)
class Chain:
    """A sequence of stages that turns blank, seeded cases into accepted image-mask pairs."""

    stages: tuple[StageSpec, ...]

    @classmethod
    def parse(cls, expression: str) -> Chain:
        """Read ``name(key=value, ...) | name | ...``; values are written as in TOML.

        Raises:
            ConfigError: the expression is malformed; the message points at the place.
        """
        reader = _Reader(expression)
        stages = [reader.call()]
        while reader.skip("|"):
            stages.append(reader.call())
        reader.end()
        return cls(tuple(stages))

    def __str__(self) -> str:
        return " | ".join(map(str, self.stages))

    @property
    def keys(self) -> tuple[str, ...]:
        """Names of the stages, unique in this chain: a plugin's second use is called ``name-2``."""
        names: list[str] = []
        for stage in self.stages:
            uses = sum(other.plugin == stage.plugin for other in self.stages[: len(names)])
            names.append(f"{stage.plugin}-{uses + 1}" if uses else stage.plugin)
        return tuple(names)

    def with_value(self, stage: str, key: str, value: Any) -> Chain:
        """Return the chain with one value of the stage called ``stage`` replaced."""
        if stage not in self.keys:
            raise ConfigError(f"no stage is called {stage!r}; the chain has {', '.join(self.keys)}")
        position = self.keys.index(stage)
        changed = StageSpec(self.stages[position].plugin, {**self.stages[position].values, key: value})
        return Chain((*self.stages[:position], changed, *self.stages[position + 1 :]))

    def configs(self, registry: Registry | None = None) -> dict[str, PluginConfig]:
        """Return the validated configuration of every stage by its key.

        Raises:
            PluginError: a stage names no usable plugin or extractor.
            ConfigError: a key is unknown or a value is not allowed.
        """
        registry = registry or default_registry()
        configs = {}
        for key, stage in zip(self.keys, self.stages, strict=True):
            plugin = registry.find(stage.plugin, *STAGE_ROLES).plugin
            configs[key] = registry.configured(plugin, stage.values, where=f"stage {key}")
        return configs

    def build(self, registry: Registry | None = None) -> dict[str, Stage]:
        """Return configured stages, not yet set up, by key."""
        registry = registry or default_registry()
        configs = self.configs(registry)
        built: dict[str, Stage] = {}
        for (key, config), stage in zip(configs.items(), self.stages, strict=True):
            plugin: Any = registry.find(stage.plugin, *STAGE_ROLES).plugin
            built[key] = plugin(config)
        return built

    def open(
        self,
        *,
        device: str = "auto",
        precision: str = "auto",
        data: str | Dataset | None = None,
        registry: Registry | None = None,
    ) -> list[Stage]:
        """Return the stages set up and fitted, to be called one by one on a :class:`Batch` without a run folder."""
        from .execution import open_stages

        return open_stages(self, device=device, precision=precision, data=data, registry=registry)

    def run(
        self,
        *,
        count: int,
        output: str | Path,
        seed: int = 0,
        data: str | Dataset | None = None,
        resume: bool = False,
        device: str = "auto",
        shard_size: int = 64,
        batch_size: int = 16,
        precision: str = "auto",
        workers: int = 1,
        observers: Sequence[object] = (),
        report: bool = True,
        registry: Registry | None = None,
    ) -> Run:
        """Make ``count`` cases into the run folder ``output``, see :class:`lesionforge.core.recipe.Recipe`."""
        from .recipe import Recipe, Synthesis

        recipe = Recipe(
            seed=seed,
            synthesis=Synthesis(
                chain=self, count=count, shard_size=shard_size, batch_size=batch_size, precision=precision
            ),
        )
        return recipe.run(
            output=output,
            data=data,
            resume=resume,
            device=device,
            workers=workers,
            observers=observers,
            report=report,
            registry=registry,
        )


def parse_call(text: str) -> tuple[str, dict[str, Any], str | None]:
    """Read ``name``, ``name(key=value)`` or either with ``:location`` behind, as data specifications are written.

    Returns:
        Name, given values, and the location or None.
    """
    reader = _Reader(text)
    call = reader.call()
    location = reader.rest() if reader.skip(":") else None
    if location is None:
        reader.end()
    elif not location:
        raise ConfigError(f"{text!r}: nothing stands behind the colon; a folder or file is expected")
    return call.plugin, dict(call.values), location


def write_value(value: Any) -> str:
    """Return a value as TOML text on one line: text, numbers, booleans and lists of them."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, int):
        if not -(2**63) <= value < 2**64:
            raise ConfigError("a number in a recipe has at most 64 bits")
        return str(value)
    if isinstance(value, float):
        return repr(value) if math.isfinite(value) else str(value)
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False).replace("\x7f", "\\u007F")
    if isinstance(value, Mapping):
        return "{" + ", ".join(f"{write_key(key)} = {write_value(item)}" for key, item in value.items()) + "}"
    if isinstance(value, Sequence):
        return "[" + ", ".join(map(write_value, value)) + "]"
    raise ConfigError(f"a {type(value).__name__} cannot be written in a recipe: {value!r}")


def write_key(key: str) -> str:
    """Return a TOML key, quoted where it must be."""
    return key if re.fullmatch(r"[A-Za-z0-9_-]+", key) else json.dumps(key)


class _Reader:
    """Recursive-descent reader of chain expressions; values are handed to the TOML reader."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0

    def _fail(self, expected: str) -> ConfigError:
        found = self._text[self._at : self._at + 12] or "the end"
        return ConfigError(f"chain {self._text!r}, column {self._at + 1}: expected {expected}, found {found!r}")

    def _blank(self) -> None:
        while self._at < len(self._text) and self._text[self._at].isspace():
            self._at += 1

    def skip(self, sign: str) -> bool:
        self._blank()
        found = self._text.startswith(sign, self._at)
        self._at += len(sign) if found else 0
        return found

    def rest(self) -> str:
        return self._text[self._at :].strip()

    def end(self) -> None:
        self._blank()
        if self._at < len(self._text):
            raise self._fail("'|' or the end")

    def _match(self, pattern: re.Pattern[str], expected: str) -> str:
        self._blank()
        match = pattern.match(self._text, self._at)
        if match is None:
            raise self._fail(expected)
        self._at = match.end()
        return match.group()

    def call(self) -> StageSpec:
        name = self._match(_NAME, "a plugin's name")
        values: dict[str, Any] = {}
        if self.skip("("):
            while not self.skip(")"):
                if values and not self.skip(","):
                    raise self._fail("',' or ')'")
                key = self._match(_KEY, "a key")
                if key in values:
                    raise ConfigError(f"chain {self._text!r}: {name} is given {key!r} twice")
                if not self.skip("="):
                    raise self._fail("'='")
                values[key] = self._value(key)
        return StageSpec(name, values)

    def _value(self, key: str) -> Any:
        """Take text up to the ',' or ')' that closes the value, minding quotes and brackets, and read it as TOML."""
        self._blank()
        start, depth, quote = self._at, 0, ""
        while self._at < len(self._text):
            sign = self._text[self._at]
            if quote:
                if sign == "\\" and quote == '"':
                    self._at += 1
                elif sign == quote:
                    quote = ""
            elif sign in "\"'":
                quote = sign
            elif sign in "[{":
                depth += 1
            elif sign in "]}":
                depth -= 1
            elif depth <= 0 and sign in ",)|":
                break
            self._at += 1
        written = self._text[start : self._at].strip()
        return read_value(written, where=f"chain {self._text!r}, {key}")


def read_value(written: str, *, where: str) -> Any:
    """Read one TOML value.

    Raises:
        ConfigError: it is none; a bare word gets the advice to put it in quotes.
    """
    try:
        document = tomllib.loads(f"value = {written}")
    except (ValueError, RecursionError):  # Python reads no integer of more than 4,300 digits
        document = {}
    if set(document) != {"value"}:
        raise ConfigError(f'{where}: {written!r} is no value; write numbers, true, false, [lists] or "text" in quotes')
    return document["value"]
