"""What the wheel holds, and that it is built without a compiler unless one is required."""

from __future__ import annotations

import configparser
import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
ROOMS = ("core", "plugins", "kernels", "cli")
# What lies in the root and belongs to the package, beside the rooms, recipes/ and checkpoints/.
FACE = {"__init__.py", "py.typed", "testing.py"}
NEEDED = ("setup.py", "pyproject.toml", "CMakeLists.txt", "MANIFEST.in", "LICENSE", *FACE)
# There only where nvcc was.
CUDA_LIBRARY = "liblesionforge_cuda.so"
FOLDERS = (*ROOMS, "recipes", "checkpoints", "tests", "benchmarks", "examples", "docs", "zoo")


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy without build products, in a folder whose name is no identifier."""
    copy = tmp_path_factory.mktemp("checkout") / "my-repo.1"
    copy.mkdir()
    for name in (*NEEDED, "README.md"):
        if (ROOT / name).exists():
            shutil.copy(ROOT / name, copy)
    for name in FOLDERS:
        if (ROOT / name).exists():
            shutil.copytree(ROOT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__", "*.so", "build"))
    return copy


def build_wheel(checkout: Path, output: Path, **environment: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "pip", "wheel", "--no-deps", "--no-build-isolation", "--no-index"]
    scripts = str(Path(sys.executable).parent)
    environment = {**os.environ, "PATH": scripts + os.pathsep + os.environ["PATH"], **environment}
    shutil.rmtree(checkout / "build", ignore_errors=True)
    return subprocess.run(
        [*command, "--wheel-dir", str(output), str(checkout)], env=environment, capture_output=True, text=True
    )


def contents(output: Path) -> set[str]:
    (wheel,) = output.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        return set(archive.namelist())


@pytest.fixture(scope="module")
def wheel(checkout: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    if shutil.which("c++") is None:
        pytest.skip("no C++ compiler")
    output = tmp_path_factory.mktemp("wheel")
    done = build_wheel(checkout, output, LESIONFORGE_REQUIRE_NATIVE="1")
    assert done.returncode == 0, done.stdout + done.stderr
    return output


def test_the_wheel_holds_every_module_and_the_package_data(checkout: Path, wheel: Path) -> None:
    modules = [path for room in ROOMS for path in (checkout / room).rglob("*.py")]
    data = [*(checkout / "recipes").rglob("*.toml"), *(checkout / name for name in FACE)]
    data += [path for path in (checkout / "checkpoints").rglob("*") if path.is_file()]
    data += (checkout / "plugins/stable_diffusion/clip_vocabulary").iterdir()
    data += [path for kind in ("html", "css", "js") for path in (checkout / "core").rglob(f"*.{kind}")]
    expected = {f"lesionforge/{path.relative_to(checkout).as_posix()}" for path in (*modules, *data)}
    assert expected <= contents(wheel)


def test_the_wheel_holds_the_native_module(wheel: Path) -> None:
    binaries = {name for name in contents(wheel) if Path(name).suffix in (".so", ".pyd", ".dll")}
    (native,) = binaries - {f"lesionforge/{CUDA_LIBRARY}"}
    assert native.startswith("lesionforge/_native.")


def test_the_wheel_holds_nothing_else(wheel: Path) -> None:
    homes = {name.split("/")[1] for name in contents(wheel) if name.startswith("lesionforge/")}
    allowed = {*ROOMS, *FACE, CUDA_LIBRARY, "recipes", "checkpoints"}
    assert {name for name in homes if not name.startswith("_native.")} <= allowed
    tops = {name.split("/")[0] for name in contents(wheel)}
    assert {top for top in tops if not top.endswith(".dist-info")} == {"lesionforge"}
    assert not [name for name in contents(wheel) if name.endswith((".cpp", ".hpp", ".cu", ".cuh", "CMakeLists.txt"))]
    assert any(name.endswith("/LICENSE") for name in contents(wheel))


def test_every_entry_point_leads_to_a_module_of_the_wheel(wheel: Path) -> None:
    names = contents(wheel)
    (table,) = [name for name in names if name.endswith("entry_points.txt")]
    parser = configparser.ConfigParser()
    with zipfile.ZipFile(next(wheel.glob("*.whl"))) as archive:
        parser.read_string(archive.read(table).decode())
    targets = {value.split(":")[0] for section in parser.sections() for value in parser[section].values()}
    assert "lesionforge.kernels.diagnostics" in targets
    assert not [target for target in targets if target.replace(".", "/") + ".py" not in names]


def test_a_failing_compiler_leaves_a_wheel_without_the_native_module(checkout: Path, tmp_path: Path) -> None:
    done = build_wheel(checkout, tmp_path, CXX=str(failing_compiler(tmp_path)), LESIONFORGE_REQUIRE_NATIVE="0")
    assert done.returncode == 0, done.stdout + done.stderr
    assert "lesionforge/kernels/seeded_noise/reference.py" in contents(tmp_path)
    assert not [name for name in contents(tmp_path) if name.endswith(".so")]


def test_a_failing_compiler_fails_where_the_native_module_is_required(checkout: Path, tmp_path: Path) -> None:
    done = build_wheel(checkout, tmp_path, CXX=str(failing_compiler(tmp_path)), LESIONFORGE_REQUIRE_NATIVE="1")
    assert done.returncode != 0
    assert not list(tmp_path.glob("*.whl"))
    assert "lesionforge._native" in done.stdout + done.stderr


def failing_compiler(folder: Path) -> Path:
    compiler = folder / "c++"
    compiler.write_text("#!/bin/sh\nexit 1\n")
    compiler.chmod(0o755)
    return compiler
