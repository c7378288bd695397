"""One package under one name: what the checkout's folder is called, and what lies in it, changes nothing."""

from __future__ import annotations

import importlib.util
import json
import os
import shutil
import subprocess
import sys
from importlib.metadata import version
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
HEAVY = ("torch", "numpy", "diffusers", "transformers", "matplotlib", "scipy")


def loaded_after(program: str) -> set[str]:
    """Top-level modules that a fresh interpreter has loaded after the program."""
    program += "\nimport json, sys\nprint(json.dumps(sorted({name.split('.')[0] for name in sys.modules})))"
    done = subprocess.run([sys.executable, "-c", program], check=True, capture_output=True, text=True)
    return set(json.loads(done.stdout.splitlines()[-1]))


def test_kernels_of_the_checkout_shadow_no_distribution() -> None:
    spec = importlib.util.find_spec("kernels")
    places = [] if spec is None else [spec.origin, *(spec.submodule_search_locations or [])]
    ours = (ROOT / "kernels", ROOT / "tests")
    assert not [place for place in places if place and any(Path(place).is_relative_to(folder) for folder in ours)]


def test_the_checkout_is_not_on_the_path() -> None:
    assert ROOT not in [Path(entry or ".").resolve() for entry in sys.path], "set PYTHONSAFEPATH=1"


def test_no_conftest_lies_beside_the_kernel_tests() -> None:
    """pytest names it `kernels.conftest` when tests/kernels is asked for by name, whatever tests/conftest.py says."""
    assert not list((ROOT / "tests" / "kernels").rglob("conftest.py"))


def test_the_package_is_imported_only_once() -> None:
    import lesionforge

    files = {
        name: Path(module.__file__) for name, module in list(sys.modules.items()) if getattr(module, "__file__", None)
    }
    package = Path(lesionforge.__file__).parent
    tests = ROOT / "tests"
    rooms = [package / "__init__.py", *(package / room for room in ("core", "plugins", "kernels", "cli"))]
    strangers = {
        name: file
        for name, file in files.items()
        if name.split(".")[0] != "lesionforge"
        and not file.is_relative_to(tests)
        and any(file.is_relative_to(room) for room in rooms)
    }
    assert strangers == {}


@pytest.mark.parametrize("folder", ["my-repo.1", "kernels", "lesionforge", "with space"])
def test_tests_are_collected_in_a_folder_of_any_name(tmp_path: Path, folder: str) -> None:
    tests = tmp_path / folder / "tests"
    (tests / "kernels").mkdir(parents=True)
    for name in ("pytest.ini", "conftest.py"):
        shutil.copy(ROOT / "tests" / name, tests)
    (tests.parent / "__init__.py").write_text("raise AssertionError(f'imported as {__name__}')\n")
    (tests / "kernels" / "test_name.py").write_text(
        "import sys\n\ndef test_name():\n    assert __name__ == 'tests.kernels.test_name'\n"
        "    assert 'kernels' not in sys.modules\n"
    )
    command = [sys.executable, "-m", "pytest", "-c", "tests/pytest.ini", "-p", "no:cacheprovider", "tests"]
    environment = {**os.environ, "PYTHONSAFEPATH": "1", "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}
    done = subprocess.run(command, cwd=tests.parent, env=environment, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr


def test_importing_the_package_loads_nothing_heavy() -> None:
    assert not loaded_after("import lesionforge").intersection(HEAVY)


def test_loading_every_plugin_loads_nothing_heavy() -> None:
    program = (
        "from importlib.metadata import distribution\n"
        "for entry in distribution('lesionforge').entry_points:\n"
        "    if entry.group == 'lesionforge': entry.load()"
    )
    assert not loaded_after(program).intersection(HEAVY)


def test_the_version_is_one() -> None:
    import lesionforge

    assert lesionforge.__version__ == version("lesionforge")
