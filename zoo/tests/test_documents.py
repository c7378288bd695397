"""What the zoo's README and recipes say is checked against the program."""

from __future__ import annotations

import importlib
import re
import tomllib
from pathlib import Path

import pytest

import lesionforge as lf

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_links_lead_somewhere():
    targets = re.findall(r"\]\(([^)#]+)\)", README)
    assert not [target for target in targets if "://" not in target and not (ROOT / target).exists()]


def test_chains_are_valid():
    chains = re.findall(r"lesionforge run '([^']+)'", README)
    assert chains and all(lf.Chain.parse(chain).configs() for chain in chains)


@pytest.mark.parametrize("recipe", sorted(ROOT.glob("recipes/*.toml")), ids=lambda path: path.stem)
def test_recipes_are_valid_and_named_after_their_files(recipe: Path):
    assert tomllib.loads(recipe.read_text())["name"] == recipe.stem
    assert lf.Recipe.load(recipe).resolved().description
    assert recipe.name in README


def test_the_readme_names_every_plugin():
    module = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["entry-points"]["lesionforge"]
    names = {plugin.name for target in module.values() for plugin in registered(target)}
    assert not [name for name in names if f"`{name}`" not in README]


def registered(module: str) -> list[type]:
    return list(importlib.import_module(module).register_plugins())
