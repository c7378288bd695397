"""Imports run one way: cli -> core <- plugins -> kernels."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ALLOWED = {
    "core": {"core"},
    "kernels": {"kernels", "_native"},
    "plugins": {"plugins", "core", "kernels"},
    "cli": {"cli", "core"},
}
PARTS = {*ALLOWED, "_native"}
# Folders of plugins/ that several methods share; each may also import those before it.
SHARED = ("data", "supervised", "diffusion", "stable_diffusion")
# Libraries that a room may not know at all.
FOREIGN = {"core": {"typer"}, "kernels": {"typer", "diffusers"}}
SOURCES = sorted(path for room in ALLOWED for path in (ROOT / room).rglob("*.py"))


def module_of(path: Path) -> list[str]:
    parts = list(path.relative_to(ROOT).with_suffix("").parts)
    return parts[:-1] if parts[-1] == "__init__" else parts


def package_of(path: Path) -> list[str]:
    return list(path.relative_to(ROOT).parent.parts)


def imported(source: str, package: list[str]) -> Iterator[tuple[int, list[str]]]:
    """Line and target of each import inside the package: targets from its root, as `plugins.data`; others untouched.

    `import_module` with a literal name counts too: it is how lazy imports are written.
    """
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from ((node.lineno, alias.name.split(".")) for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            module = resolve(node.level, (node.module or "").split("."), package)
            # `from .. import kernels` imports the module kernels: each name may be one.
            yield from ((node.lineno, [*module, alias.name]) for alias in node.names)
        elif isinstance(node, ast.Call) and called_name(node) == "import_module" and node.args:
            name = node.args[0]
            if isinstance(name, ast.Constant) and isinstance(name.value, str):
                bare = name.value.lstrip(".")
                yield node.lineno, resolve(len(name.value) - len(bare), bare.split("."), package)


def called_name(call: ast.Call) -> str:
    return call.func.attr if isinstance(call.func, ast.Attribute) else getattr(call.func, "id", "")


def resolve(level: int, module: list[str], package: list[str]) -> list[str]:
    names = [part for part in module if part]
    if level == 0:
        return names
    return ["lesionforge", *package[: len(package) - level + 1], *names]


def objection(target: list[str], package: list[str]) -> str | None:
    """Why the file of this package may not import the target, or None."""
    room = package[0]
    if target[0] != "lesionforge":
        return f"{room} may not know {target[0]}" if target[0] in FOREIGN.get(room, ()) else None
    inside = target[1:]
    if not inside or inside[0] not in PARTS:
        return None
    if inside[0] not in ALLOWED[room]:
        return f"an arrow the house does not have: {room} -> {inside[0]}"
    if room == inside[0] == "plugins" and len(inside) > 1 and len(package) > 1:
        if inside[1] not in (package[1], *SHARED):
            return f"method {package[1]} imports method {inside[1]}"
        if package[1] in SHARED and inside[1] not in SHARED[: SHARED.index(package[1]) + 1]:
            return f"shared folder {package[1]} imports {inside[1]}"
    return None


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_imports_run_one_way(path: Path) -> None:
    package = package_of(path)
    wrong = [
        f"{path.relative_to(ROOT)}:{line}: {reason}"
        for line, target in imported(path.read_text(encoding="utf-8"), package)
        if (reason := objection(target, package))
    ]
    assert not wrong, "\n".join(wrong)


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_inside_the_package_imports_are_relative(path: Path) -> None:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    absolute = [
        node.lineno
        for node in ast.walk(tree)
        if (isinstance(node, ast.ImportFrom) and not node.level and (node.module or "").split(".")[0] == "lesionforge")
        or (isinstance(node, ast.Import) and any(alias.name.split(".")[0] == "lesionforge" for alias in node.names))
    ]
    assert not absolute, f"{path.relative_to(ROOT)} imports lesionforge by its absolute name in lines {absolute}"


@pytest.mark.parametrize(
    ("package", "source", "reason"),
    [
        ("core", "from ..plugins.ddpm import unet", "core -> plugins"),
        ("core", "from .. import kernels", "core -> kernels"),
        ("core.report", "from ...cli.main import main", "core -> cli"),
        ("core", "import typer", "core may not know typer"),
        ("kernels.seeded_noise", "from ...core.errors import LesionforgeError", "kernels -> core"),
        ("cli", "def f():\n    from ..kernels import philox_u32", "cli -> kernels"),
        ("cli", "import_module('..plugins.ddpm', __package__)", "cli -> plugins"),
        ("plugins.ddpm", "import lesionforge.cli.main", "plugins -> cli"),
        ("plugins.ddpm", "from ..segmentation.models import Unet", "method ddpm imports method segmentation"),
        ("plugins.ddpm", "from .. import quality", "method ddpm imports method quality"),
        ("plugins.data", "from ..ddpm.unet import Unet", "method data imports method ddpm"),
        ("plugins.data", "from ..stable_diffusion import x", "shared folder data imports stable_diffusion"),
        ("plugins.diffusion", "from ..stable_diffusion import x", "shared folder diffusion imports stable_diffusion"),
        ("plugins.stable_diffusion", "from ..diffusion import x", None),
        ("plugins.ddpm", "from ..data.phantom import draw", None),
        ("plugins.ddpm", "from ...kernels import seeded_normal\nfrom .unet import Unet", None),
        ("plugins.ddpm", "from ... import __version__\nimport torch", None),
        ("cli", "from ..core.errors import LesionforgeError\nimport typer", None),
        ("kernels.seeded_noise", "from .. import native\nfrom . import cpu", None),
    ],
)
def test_the_walk_sees_every_kind_of_arrow(package: str, source: str, reason: str | None) -> None:
    parts = package.split(".")
    found = [why for _, target in imported(source, parts) if (why := objection(target, parts))]
    assert bool(found) == (reason is not None)
    assert reason is None or reason in found[0]


@pytest.mark.parametrize("path", SOURCES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_no_file_grows_past_400_lines(path: Path) -> None:
    assert len(path.read_text(encoding="utf-8").splitlines()) <= 400


def test_no_drawer_for_everything() -> None:
    drawers = {"utils", "helpers", "common", "misc"}
    assert not [path for path in SOURCES if drawers & set(path.relative_to(ROOT).with_suffix("").parts)]


def test_every_folder_of_a_room_is_a_package() -> None:
    """A folder without __init__.py is missing from the wheel while the checkout works."""
    folders = {path.parent for path in SOURCES}
    assert not [folder for folder in folders if not (folder / "__init__.py").is_file()]
