"""Finds plugins in entry points, one at a time, so that a broken stranger never breaks the house."""

from __future__ import annotations

import functools
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from importlib.metadata import EntryPoint, entry_points
from typing import Any

import pluggy

from .config import PluginConfig, build_config, extractor_fields
from .errors import LesionforgeError, PluginError, first_line
from .hookspecs import PROJECT, LifecycleHooks, Observers, RegistrationHooks
from .roles import ROLES, Plugin

ENTRY_POINT_GROUP = "lesionforge"


@dataclass(frozen=True)
class PluginEntry:
    """A usable plugin and the distribution that it came from."""

    plugin: type[Plugin]
    distribution: str
    version: str

    @property
    def name(self) -> str:
        """Public name of the plugin."""
        return self.plugin.name

    @property
    def role(self) -> str:
        """Name of the plugin's role."""
        return self.plugin.role

    @property
    def summary(self) -> str:
        """First line of the plugin's docstring."""
        return (self.plugin.__doc__ or "").strip().partition("\n")[0]


@dataclass(frozen=True)
class BrokenPlugin:
    """An entry point that could not be used, and why."""

    entry_point: str
    distribution: str
    reason: str


class Registry:
    """All plugins by role and name, the broken ones with their errors, and the hooks of a run."""

    def __init__(self, points: Iterable[EntryPoint]) -> None:
        self.hooks = pluggy.PluginManager(PROJECT)
        self.hooks.add_hookspecs(RegistrationHooks)
        self.hooks.add_hookspecs(LifecycleHooks)
        self.observers = Observers(self.hooks)
        self.broken: list[BrokenPlugin] = []
        self._entries: dict[tuple[str, str], list[PluginEntry]] = {}
        for point in sorted(points, key=lambda point: (_origin(point), point.name)):
            self._load(point)

    def _load(self, point: EntryPoint) -> None:
        origin, version = _origin(point), point.dist.version if point.dist else "unknown"
        name = f"{origin}:{point.name}"
        taken = self.hooks.has_plugin(name)
        try:
            module = point.load()
            self._check_hooks(module)
            plugins = module.register_plugins() if hasattr(module, "register_plugins") else []
            entries = [PluginEntry(_checked(plugin), origin, version) for plugin in plugins]
            self.hooks.register(module, name=name)
        except (Exception, SystemExit) as error:  # a stranger's module may raise anything, or call sys.exit
            if not taken and self.hooks.has_plugin(name):
                self.hooks.unregister(name=name)
            self.broken.append(BrokenPlugin(point.name, origin, f"{type(error).__name__}: {first_line(error)}"))
            return
        for entry in entries:
            self._entries.setdefault((entry.role, entry.name), []).append(entry)

    def _check_hooks(self, module: Any) -> None:
        known = {name for spec in (RegistrationHooks, LifecycleHooks) for name in vars(spec) if name[0] != "_"}
        marked = (name for name in dir(module) if hasattr(getattr(module, name), f"{PROJECT}_impl"))
        unknown = [name for name in marked if name not in known]
        if unknown:
            raise PluginError(f"implements unknown hooks {', '.join(unknown)}; known are {', '.join(sorted(known))}")

    def entries(self, role: str | None = None) -> list[PluginEntry]:
        """Return all usable plugins, by role and name; duplicates are all listed."""
        order = list(ROLES)
        keys = sorted(self._entries, key=lambda key: (order.index(key[0]), key[1]))
        return [entry for key in keys for entry in self._entries[key] if role in (None, entry.role)]

    def find(self, name: str, *roles: str) -> PluginEntry:
        """Return the plugin ``name`` of one of ``roles`` (any, if none is given).

        Raises:
            PluginError: there is none, it is broken, or two distributions claim the name.
        """
        found = [entry for entry in self.entries() if entry.name == name and (not roles or entry.role in roles)]
        if len(found) == 1:
            return found[0]
        wanted = " or ".join(roles) or "plugin"
        if found and len({entry.role for entry in found}) > 1:
            raise PluginError(f"{name!r} names a {' and a '.join(entry.role for entry in found)}; say which role")
        if found:
            owners = " and ".join(entry.distribution for entry in found)
            raise PluginError(f"{wanted} {name!r} is provided by both {owners}; uninstall one of them")
        for broken in self.broken:
            if broken.entry_point == name:
                raise PluginError(f"plugin {name!r} of {broken.distribution} is broken: {broken.reason}")
        names = sorted({entry.name for entry in self.entries() if not roles or entry.role in roles})
        broken_note = f"; broken: {', '.join(b.entry_point for b in self.broken)}" if self.broken else ""
        raise PluginError(f"no {wanted} is called {name!r}; there are {', '.join(names) or 'none'}{broken_note}")

    def configured(self, plugin: type[Plugin], values: Mapping[str, Any], *, where: str) -> PluginConfig:
        """Return the plugin's configuration with ``values``; ``where`` opens every error message.

        Raises:
            ConfigError: a key is unknown or a value is not allowed.
            PluginError: a value names another plugin that is not there or broken.
        """
        config = build_config(plugin.Config, values, where=where)
        for key in extractor_fields(plugin.Config):
            if getattr(config, key) is not None:
                try:
                    self.find(getattr(config, key), "extractor")
                except PluginError as error:
                    raise PluginError(f"{where}: {key}: {error}") from None
        try:
            plugin.uses(config, self)
        except LesionforgeError as error:
            raise type(error)(f"{where}: {error}") from None
        return config

    def create(self, role: str, name: str, values: Mapping[str, Any], *, where: str) -> Any:
        """Return a new plugin of ``role`` configured with ``values``; ``where`` opens every error message."""
        plugin = self.find(name, role).plugin
        return plugin(self.configured(plugin, values, where=f"{where} {name}" if where != name else name))


def _origin(point: EntryPoint) -> str:
    return point.dist.name if point.dist else "unknown distribution"


def _checked(plugin: Any) -> type[Plugin]:
    if not (isinstance(plugin, type) and issubclass(plugin, Plugin) and getattr(plugin, "role", None) in ROLES):
        raise PluginError(f"register_plugins returned {plugin!r}, which is no class derived from a role")
    if not isinstance(getattr(plugin, "name", None), str):
        raise PluginError(f"plugin class {plugin.__qualname__} has no name")
    if getattr(plugin, "__abstractmethods__", None):
        raise PluginError(f"plugin {plugin.name} does not define {', '.join(sorted(plugin.__abstractmethods__))}")
    if not issubclass(plugin.Config, PluginConfig):
        raise PluginError(f"plugin {plugin.name}: Config must derive from lesionforge.PluginConfig")
    plugin.Config.model_rebuild()
    return plugin


@functools.cache
def default_registry() -> Registry:
    """Return the registry of everything installed in this environment."""
    return Registry(entry_points(group=ENTRY_POINT_GROUP))
