"""The zoo stands on lesionforge's public interface alone, as a stranger's package would."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

import lesionforge as lf

ROOT = Path(__file__).parents[1]
SOURCES = sorted([*(ROOT / "lesionforge_zoo").rglob("*.py"), *(ROOT / "tests").rglob("*.py")])
# Modules of lesionforge that anyone may import, beside the names that the package itself exports.
PUBLIC_MODULES = {"lesionforge.testing", "lesionforge.kernels"}
OFFERED = {*lf.__all__, "__all__"}


def objections(source: str) -> Iterator[str]:
    """Why each import of lesionforge in the source, and each name taken from it, is not public."""
    tree = ast.parse(source)
    faces = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            faces |= {alias.asname or "lesionforge" for alias in node.names if alias.name == "lesionforge"}
            yield from (f"{node.lineno}: {alias.name}" for alias in node.names if is_hidden(alias.name))
        elif isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "lesionforge":
            names = [f"{node.module}.{alias.name}" for alias in node.names]
            yield from (f"{node.lineno}: {name}" for name in names if not is_offered(name))
        elif isinstance(node, ast.Call) and "import_module" in ast.unparse(node.func) and node.args:
            name = ast.literal_eval(node.args[0]) if isinstance(node.args[0], ast.Constant) else ""
            yield from [f"{node.lineno}: {name}"] if is_hidden(str(name)) else []
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id in faces:
            name = f"lesionforge.{node.attr}"
            yield from [] if is_offered(name) else [f"{node.lineno}: {name}"]


def is_hidden(module: str) -> bool:
    """True for a module of lesionforge that is none of the public ones."""
    return module.split(".")[0] == "lesionforge" and module not in {"lesionforge", *PUBLIC_MODULES}


def is_offered(name: str) -> bool:
    """True for a public module, a name in it, or a name that the package exports."""
    home, _, last = name.rpartition(".")
    return name in PUBLIC_MODULES or home in PUBLIC_MODULES or (home == "lesionforge" and last in OFFERED)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_only_the_public_interface_is_imported(path: Path) -> None:
    found = [f"{path.relative_to(ROOT)}:{reason}" for reason in objections(path.read_text(encoding="utf-8"))]
    assert not found, "\n".join(found)


@pytest.mark.parametrize(
    ("source", "refused"),
    [
        ("import lesionforge.core.batch", True),
        ("from lesionforge.core.errors import DataError", True),
        ("from lesionforge import core", True),
        ("import lesionforge as lf\nlf.core.batch", True),
        ("import lesionforge\nlesionforge.core", True),
        ("def f():\n    import importlib\n    importlib.import_module('lesionforge.plugins.ddpm')", True),
        ("import lesionforge as lf\nlf.Batch, lf.TrainingLoop", False),
        ("from lesionforge.testing import contract_rules\nfrom lesionforge.kernels import seeded_uniform", False),
        ("from lesionforge import Trainer, kernels\nfrom .network import Generator\nimport torch", False),
    ],
)
def test_the_walk_sees_every_kind_of_import(source: str, refused: bool) -> None:
    assert bool(list(objections(source))) == refused


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_are_short(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400
