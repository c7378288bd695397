"""The template engine of the report's pages, with the words that they write numbers in."""

from __future__ import annotations

from pathlib import Path

from jinja2 import Environment, FileSystemLoader, StrictUndefined

from . import wording
from .overview import short

TEMPLATES = Path(__file__).parent


def page_environment(*folders: Path) -> Environment:
    """Return an environment that finds the report's templates, and before them those in ``folders``."""
    environment = Environment(
        loader=FileSystemLoader([*folders, TEMPLATES]),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    for word in (wording.number, wording.fixed, wording.count, wording.percent, wording.plural, wording.duration):
        environment.filters[word.__name__] = word
    environment.filters["breakable"], environment.filters["short"] = wording.breakable, short
    environment.filters["px"] = lambda value: f"{value:.1f}"
    return environment
