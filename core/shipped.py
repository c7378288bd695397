"""Recipes and studies that come with lesionforge; those in ``papers`` re-run the tables of the four papers."""

from __future__ import annotations

from pathlib import Path

from .chain import Chain
from .errors import ConfigError
from .recipe import Recipe, Synthesis

RECIPES = Path(__file__).resolve().parents[1] / "recipes"


def shipped_recipes(folder: Path = RECIPES) -> dict[str, Path]:
    """Return the recipes in ``folder``, by name."""
    return {name: file for name, file in _shipped(folder).items() if not _is_study(file)}


def shipped_studies(folder: Path = RECIPES) -> dict[str, Path]:
    """Return the studies in ``folder``, by name."""
    return {name: file for name, file in _shipped(folder).items() if _is_study(file)}


def _shipped(folder: Path) -> dict[str, Path]:
    files = [file for pattern in ("*.toml", "papers/*.toml") for file in sorted(folder.glob(pattern))]
    return {file.relative_to(folder).with_suffix("").as_posix(): file for file in files}


def _is_study(file: Path) -> bool:
    return any(line.strip() == "[study]" for line in file.read_text(encoding="utf-8").splitlines())


def find_recipe(text: str) -> Recipe:
    """Return the recipe of a file, of a built-in name, or of a chain expression.

    Raises:
        ConfigError: it is none of them.
    """
    path = Path(text)
    if len(text) < 4096 and path.is_file():
        return Recipe.load(path)
    built_in = shipped_recipes()
    if text in built_in:
        return Recipe.load(built_in[text])
    if "(" not in text and "|" not in text:
        raise ConfigError(f"there is no recipe {text}; built in are {', '.join(built_in)}")
    chain = Chain.parse(text)
    return Recipe(name="-".join(chain.keys)[:60], synthesis=Synthesis(chain))
