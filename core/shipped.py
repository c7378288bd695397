"""Recipes and studies that come with lesionforge."""

from __future__ import annotations

from pathlib import Path

from .chain import Chain
from .errors import ConfigError
from .recipe import Recipe, Synthesis

RECIPES = Path(__file__).resolve().parents[1] / "recipes"
STUDY_FILES = ("study-*.toml", "papers/*.toml")


def shipped_recipes(folder: Path = RECIPES) -> dict[str, Path]:
    """Return the recipes in ``folder``, by name."""
    studies = set(shipped_studies(folder).values())
    return {file.stem: file for file in sorted(folder.glob("*.toml")) if file not in studies}


def shipped_studies(folder: Path = RECIPES) -> dict[str, Path]:
    """Return the studies in ``folder``, by name; those that re-run a paper's table are called ``papers/NAME``."""
    files = [file for pattern in STUDY_FILES for file in sorted(folder.glob(pattern))]
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def find_recipe(text: str) -> Recipe:
    """Return the recipe of a file, of a built-in name, or of a chain expression.

    Raises:
        ConfigError: it is none of them.
    """
    path = Path(text)
    if len(text) < 4096 and path.is_file():
        return Recipe.load(path)
    if text in shipped_recipes():
        return Recipe.load(shipped_recipes()[text])
    if "(" not in text and "|" not in text:
        raise ConfigError(f"there is no recipe {text}; built in are {', '.join(shipped_recipes())}")
    chain = Chain.parse(text)
    return Recipe(name="-".join(chain.keys)[:60], synthesis=Synthesis(chain))
