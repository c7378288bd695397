"""``lesionforge plugins``: what is installed, what it can be told, and whether it keeps its contract."""

from __future__ import annotations

import inspect
from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated, Any

import typer

from . import options
from .completion import complete_plugin, complete_role
from .outcome import Verb
from .output import columns, console, printable, write_json
from .plugin_keys import described_keys

if TYPE_CHECKING:
    from rich.console import Console

    from ..core.registry import PluginEntry, Registry

app = typer.Typer(help="List, explain and check plugins.", no_args_is_help=True)

RoleOption = Annotated[
    str | None,
    typer.Option(
        "--role",
        help="generator, annotator, filter, trainer, source, exporter, extractor, architecture or metric.",
        autocompletion=complete_role,
        show_default=False,
    ),
]


@app.command("list", cls=Verb)
def list_plugins(role: RoleOption = None, as_json: options.Json = False) -> None:
    """List all plugins by role, the broken ones with their error."""
    from ..core.registry import default_registry

    registry = default_registry()
    entries = registry.entries(_checked_role(role))
    if as_json:
        broken = [vars(plugin) for plugin in registry.broken]
        write_json({"plugins": [_facts(entry, registry) for entry in entries], "broken": broken})
    else:
        _print_list(entries, registry)


@app.command(cls=Verb)
def show(
    name: Annotated[str, typer.Argument(metavar="NAME", autocompletion=complete_plugin, show_default=False)],
    role: RoleOption = None,
    as_json: options.Json = False,
) -> None:
    """Explain a plugin and every key of its configuration."""
    from ..core.registry import default_registry

    registry = default_registry()
    entries = [entry for entry in registry.entries(_checked_role(role)) if entry.name == name]
    if not entries:
        registry.find(name, *filter(None, [role]))
    if as_json:
        write_json({"plugins": [{**_facts(entry, registry), **_explanation(entry)} for entry in entries]})
        return
    out = console()
    for position, entry in enumerate(entries):
        if position:
            out.print("\n")
        _print_plugin(entry, out)


@app.command(cls=Verb)
def check(
    plugin: Annotated[
        str,
        typer.Argument(
            metavar="PLUGIN",
            help="Name, or name(key=value) with values that make the plugin quick.",
            autocompletion=complete_plugin,
            show_default=False,
        ),
    ],
    role: RoleOption = None,
    data: options.Data = None,
    as_json: options.Json = False,
) -> None:
    """Hold a plugin to the contract of its role; exit with 2 where it breaks a rule."""
    from ..core.loading import load_dataset
    from ..core.testing import contract_rules

    rules = contract_rules(plugin, role=_checked_role(role), data=load_dataset(data) if data else None)
    results = []
    for rule in rules:
        objection = _objection(rule)
        results.append({"rule": rule.name, "kept": objection is None, "objection": objection})
        if not as_json:
            _print_rule(rule.name, objection)
    if as_json:
        write_json({"plugin": plugin, "rules": results})
    if not all(result["kept"] for result in results):
        raise typer.Exit(2)


def _checked_role(role: str | None) -> str | None:
    from ..core.errors import ConfigError
    from ..core.roles import ROLES

    if role is not None and role not in ROLES:
        raise ConfigError(f"no role is called {role!r}; there are {', '.join(ROLES)}")
    return role


def _is_duplicate(entry: PluginEntry, registry: Registry) -> bool:
    return sum(other.name == entry.name for other in registry.entries(entry.role)) > 1


def _facts(entry: PluginEntry, registry: Registry) -> dict[str, Any]:
    return {
        "name": entry.name,
        "role": entry.role,
        "summary": entry.summary,
        "distribution": entry.distribution,
        "version": entry.version,
        "duplicate": _is_duplicate(entry, registry),
    }


def _explanation(entry: PluginEntry) -> dict[str, Any]:
    facts = {"doc": inspect.getdoc(entry.plugin), "config": entry.plugin.Config.model_json_schema()}
    parameters = _parameters(entry)
    return facts if parameters is None else {**facts, "parameters": parameters}


def _parameters(entry: PluginEntry) -> int | None:
    """Return how many parameters an architecture has by default; None for other roles, so that torch is not loaded."""
    from ..core.architectures import default_parameter_count

    return default_parameter_count(entry) if entry.role == "architecture" else None


def _print_list(entries: list[PluginEntry], registry: Registry) -> None:
    from rich.text import Text

    rows: list[Sequence[object]] = []
    for entry, before in zip(entries, [None, *entries], strict=False):
        if before is None or entry.role != before.role:
            rows += [[""]] if rows else []
            rows.append([Text(f"{entry.role}s", style="bold")])
        summary = Text(printable(entry.summary))
        if _is_duplicate(entry, registry):
            summary = Text("two distributions provide this name; uninstall one", style="red")
        origin = Text(f"{printable(entry.distribution)} {printable(entry.version)}", style="dim")
        rows.append([f"  {entry.name}", origin, summary])
    if registry.broken:
        rows += [[""], [Text("broken", style="bold red")]]
    for broken in registry.broken:
        origin = Text(printable(broken.distribution), style="dim")
        rows.append([f"  {broken.entry_point}", origin, Text(printable(broken.reason), style="red")])
    console().print(columns(rows))


def _print_plugin(entry: PluginEntry, out: Console) -> None:
    from rich.text import Text

    title = Text.assemble((printable(entry.name), "bold"), "  ", entry.role)
    out.print(title.append(f"  {printable(entry.distribution)} {printable(entry.version)}", "dim"))
    out.print()
    for paragraph in paragraphs(inspect.getdoc(entry.plugin) or ""):
        out.print(printable(paragraph))
        out.print()
    rows = []
    for key in described_keys(entry.plugin.Config):
        meaning = Text(printable(key.description)).append(f"  {printable(key.kind)}", "dim")
        rows.append([Text(printable(key.name), style="cyan"), key.default, meaning])
    if rows:
        out.print(columns(rows, header=("key", "default", "meaning")))
    parameters = _parameters(entry)
    if parameters is not None:
        out.print()
        out.print(f"{parameters:,} trainable parameters with the defaults")


def paragraphs(doc: str) -> list[str]:
    """Return a docstring's paragraphs, each on one line, so that it can be wrapped anew."""
    return [" ".join(part.split()).replace("``", "`") for part in doc.split("\n\n") if part.strip()]


def _objection(rule: Any) -> str | None:
    """Return why a rule is broken, or None; whatever a plugin raises is its own breach."""
    from ..core.errors import first_line

    try:
        rule.check()
    except Exception as error:  # the plugin under test may raise anything
        line = first_line(error)
        return line if isinstance(error, AssertionError) else f"{type(error).__name__}: {line}"
    return None


def _print_rule(name: str, objection: str | None) -> None:
    from rich.text import Text

    mark = ("kept    ", "green") if objection is None else ("broken  ", "bold red")
    line = Text.assemble(mark, printable(name))
    console().print(line.append(f": {printable(objection)}" if objection else "", "red"), soft_wrap=True)
