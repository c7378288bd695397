from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from typer.testing import CliRunner

from lesionforge.cli.main import app
from lesionforge.core.registry import default_registry

TOY_MODULE = '''
import time
from pathlib import Path

import lesionforge as lf
from pydantic import Field
from toys_of_the_core import TOYS


class Slow(lf.Annotator):
    """Takes its time with every batch."""

    name = "slow"

    class Config(lf.PluginConfig):
        marker: str = Field("", description="file whose presence speeds it up")

    def annotate(self, batch):
        time.sleep(0 if Path(self.config.marker).exists() else 0.3)
        return batch


@lf.hookimpl
def register_plugins():
    return [*TOYS, Slow]
'''
TOYS = Path(__file__).parents[1] / "core" / "toys.py"


def install(site, distribution, module, source):
    """Put a distribution with one plugin module into a folder of modules, as pip would."""
    (site / f"{module}.py").write_text(source, encoding="utf-8")
    info = site / f"{distribution.replace('-', '_')}-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {distribution}\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text(f"[lesionforge]\n{module} = {module}\n")


@pytest.fixture(scope="session")
def site(tmp_path_factory):
    """A folder that a Python finds the toy plugins in when it stands on its path."""
    folder = tmp_path_factory.mktemp("site")
    shutil.copy(TOYS, folder / "toys_of_the_core.py")
    install(folder, "toy-distribution", "lesionforge_toys", TOY_MODULE)
    return folder


@pytest.fixture
def strangers(tmp_path):
    """A folder with a broken plugin and one whose name is taken."""
    folder = tmp_path / "strangers"
    folder.mkdir()
    install(folder, "broken-distribution", "broken_toys", "raise RuntimeError('no [bold]luck[/bold]\\nat all')\n")
    source = (
        "import lesionforge as lf\n\n"
        'class Other(lf.Generator):\n    """Takes a name that is taken."""\n\n    name = "blobs"\n\n'
        "    def generate(self, batch):\n        return batch\n\n"
        "@lf.hookimpl\ndef register_plugins():\n    return [Other]\n"
    )
    install(folder, "copycat-distribution", "copycat_toys", source)
    return folder


@pytest.fixture
def on_path(monkeypatch):
    """Function that makes plugins in a folder known to this process until the test ends."""

    def add(folder):
        monkeypatch.syspath_prepend(folder)
        importlib.invalidate_caches()
        default_registry.cache_clear()

    yield add
    default_registry.cache_clear()


@pytest.fixture
def cli(site, on_path, monkeypatch, tmp_path):
    """Function that calls the command line in this process, in an empty folder, with the toys installed."""
    on_path(site)
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", "200")
    monkeypatch.delenv("LESIONFORGE_DEBUG", raising=False)

    def call(*arguments):
        result = CliRunner().invoke(app, [str(argument) for argument in arguments], prog_name="lesionforge")
        if result.exception is not None and not isinstance(result.exception, SystemExit):
            raise result.exception
        return result

    return call


@pytest.fixture
def process(site, tmp_path):
    """Function that starts the command line as a process of its own, in an empty folder."""
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, [str(site), os.environ.get("PYTHONPATH")]))}
    environment |= {"PYTHONSAFEPATH": "1", "OMP_NUM_THREADS": "1", "COLUMNS": "200"}

    def start(*arguments, **options):
        command = [sys.executable, "-m", "lesionforge.cli.main", *map(str, arguments)]
        pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "cwd": tmp_path}
        return subprocess.Popen(command, env=environment, **{**pipes, **options})

    return start


@pytest.fixture
def folder_of_discs(tmp_path):
    """A data specification of small images with masks in two sub-folders."""
    import numpy as np
    from PIL import Image

    from lesionforge.testing import disc_dataset

    data, root = disc_dataset(12, 16), tmp_path / "discs"
    for name in ("images", "masks"):
        (root / name).mkdir(parents=True)
    for row, image_id in enumerate(data.ids):
        Image.fromarray(data.image(row)).save(root / "images" / f"{image_id}.png")
        Image.fromarray((data.mask(row) * 255).astype(np.uint8)).save(root / "masks" / f"{image_id}.png")
    return f"folder:{root}"
