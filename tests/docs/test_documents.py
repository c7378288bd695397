"""What the documents say is checked against the program."""

from __future__ import annotations

import re
import tomllib
from collections import defaultdict
from pathlib import Path

import pytest

from lesionforge.core.chain import Chain
from lesionforge.core.recipe import Recipe
from lesionforge.core.registry import default_registry
from lesionforge.core.shipped import shipped_recipes

ROOT = Path(__file__).parents[2]
DOCUMENTS = sorted([*ROOT.glob("*.md"), *ROOT.glob("docs/*.md"), *ROOT.glob("examples/*/README.md")])


def ours():
    return [entry for entry in default_registry().entries() if entry.distribution == "lesionforge"]


def test_no_plugin_of_ours_is_broken():
    assert default_registry().broken == []


def test_the_readme_lists_every_plugin_by_its_role():
    rows = re.findall(r"^\| (\w+) \| (.*`.*) \|$", (ROOT / "README.md").read_text(), flags=re.MULTILINE)
    written = {role: set(re.findall(r"`([\w-]+)`", names)) for role, names in rows}
    registered = defaultdict(set)
    for entry in ours():
        registered[entry.role].add(entry.name)
    assert written == registered


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_links_lead_somewhere(document):
    targets = re.findall(r"\]\(([^)#]+)\)", document.read_text())
    missing = [t for t in targets if "://" not in t and not (document.parent / t).exists()]
    assert not missing


@pytest.mark.parametrize("document", DOCUMENTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_chains_in_documents_are_valid(document):
    registry = default_registry()
    for expression in re.findall(r"lesionforge run '([^']+)'|Chain\.parse\(\"([^\"]+)\"\)", document.read_text()):
        chain = Chain.parse("".join(expression))
        if all(stage.plugin != "ellipses" for stage in chain.stages):
            chain.configs(registry)


@pytest.mark.parametrize("recipe", shipped_recipes().values(), ids=lambda path: path.stem)
def test_recipes_are_valid_and_named_after_their_files(recipe):
    assert tomllib.loads(recipe.read_text())["name"] == recipe.stem
    resolved = Recipe.load(recipe).resolved()
    assert (resolved.synthesis or resolved.jobs) and resolved.description


def test_the_python_of_the_readme_runs(tmp_path, monkeypatch):
    code = re.search(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), flags=re.DOTALL)
    assert code
    (tmp_path / "recipes").symlink_to(ROOT / "recipes")
    monkeypatch.chdir(tmp_path)
    names: dict[str, object] = {}
    exec(compile(code[1], "README.md", "exec"), names)
    assert names["again"].identical and len(names["real"]) > 100


def test_every_configuration_key_is_described():
    bare = [
        f"{entry.role} {entry.name}: {key}"
        for entry in ours()
        for key, field in entry.plugin.Config.model_fields.items()
        if not field.description
    ]
    assert not bare
