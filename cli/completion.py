"""What the shell offers when TAB is pressed."""

from __future__ import annotations

from pathlib import Path


def complete_recipe(incomplete: str) -> list[str]:
    """Return built-in recipes and, as the shell would, files and folders."""
    from .recipe_argument import built_in_recipes

    names = [name for name in built_in_recipes() if name.startswith(incomplete)]
    return names + complete_path(incomplete)


def complete_study(incomplete: str) -> list[str]:
    """Return built-in studies and, as the shell would, files and folders."""
    from ..core.shipped import shipped_studies

    names = [name for name in shipped_studies() if name.startswith(incomplete)]
    return names + complete_path(incomplete)


def complete_path(incomplete: str) -> list[str]:
    """Return recipe files and folders that begin with what is typed."""
    parent = Path(incomplete if incomplete.endswith("/") else Path(incomplete).parent)
    try:
        entries = sorted(entry for entry in parent.iterdir() if entry.is_dir() or entry.suffix == ".toml")
    except OSError:
        return []
    paths = [f"{entry}/" if entry.is_dir() else str(entry) for entry in entries if not entry.name.startswith(".")]
    return [path for path in paths if path.startswith(incomplete)]


def complete_plugin(incomplete: str) -> list[tuple[str, str]]:
    """Return names of plugins with what they are."""
    from ..core.registry import default_registry

    entries = default_registry().entries()
    return [(entry.name, entry.summary) for entry in entries if entry.name.startswith(incomplete)]


def complete_exporter(incomplete: str) -> list[tuple[str, str]]:
    """Return names of exporters with what they are."""
    from ..core.registry import default_registry

    entries = default_registry().entries("exporter")
    return [(entry.name, entry.summary) for entry in entries if entry.name.startswith(incomplete)]


def complete_metric(incomplete: str) -> list[tuple[str, str]]:
    """Return names of metrics with what they are."""
    from ..core.registry import default_registry

    entries = default_registry().entries("metric")
    return [(entry.name, entry.summary) for entry in entries if entry.name.startswith(incomplete)]


def complete_role(incomplete: str) -> list[str]:
    """Return names of roles."""
    from ..core.roles import ROLES

    return [role for role in ROLES if role.startswith(incomplete)]
