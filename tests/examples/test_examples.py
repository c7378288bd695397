"""The examples are installed and run as a stranger would."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

EXAMPLES = Path(__file__).parents[2] / "examples"


def run(*command: str, cwd: Path, site: Path | None = None) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PYTHONSAFEPATH": "1", **({"PYTHONPATH": str(site)} if site else {})}
    return subprocess.run(command, cwd=cwd, env=environment, capture_output=True, text=True, timeout=300)


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    """A folder with the example distribution installed into it."""
    target = tmp_path_factory.mktemp("site")
    source = tmp_path_factory.mktemp("source")
    for file in (EXAMPLES / "lesionforge-example-plugin").iterdir():
        if file.is_file():
            (source / file.name).write_bytes(file.read_bytes())
    options = ("--no-deps", "--no-build-isolation", "--no-index", "--quiet", "--target", str(target))
    done = run(sys.executable, "-m", "pip", "install", *options, str(source), cwd=source)
    assert done.returncode == 0, done.stderr
    return target


def lesionforge(*arguments: str, cwd: Path, site: Path) -> subprocess.CompletedProcess[str]:
    command = "import sys; from lesionforge.cli.main import main; sys.exit(main())"
    return run(sys.executable, "-c", command, *arguments, cwd=cwd, site=site)


def test_the_example_plugin_is_listed_beside_ours(site, tmp_path):
    done = lesionforge("plugins", "list", "--json", cwd=tmp_path, site=site)
    assert done.returncode == 0, done.stderr
    listed = json.loads(done.stdout)["plugins"]
    theirs = {(e["role"], e["name"]) for e in listed if e["distribution"] == "lesionforge-example-plugin"}
    assert theirs == {("generator", "ellipses"), ("filter", "sharpness")}


def test_the_example_plugin_makes_a_screened_run(site, tmp_path):
    chain = "ellipses(size=32) | mask-quality | sharpness(percentile=50)"
    data = "phantom(count=40, size=32)"
    arguments = ("run", chain, "--data", data, "--count", "24", "--output", "out", "--no-report", "--json")
    done = lesionforge(*arguments, cwd=tmp_path, site=site)
    assert done.returncode == 0, done.stderr
    summary = json.loads(done.stdout)
    assert summary["cases"] == 24 and set(summary["rejected"]) == {"sharpness: sharpness"}
    manifest = json.loads((tmp_path / "out/manifest.json").read_text())
    assert {stage["distribution"] for stage in manifest["stages"]} == {"lesionforge", "lesionforge-example-plugin"}


def test_the_example_plugin_passes_its_own_tests(site, tmp_path):
    test = EXAMPLES / "lesionforge-example-plugin" / "test_lesionforge_example.py"
    command = (sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--rootdir", str(tmp_path), str(test))
    done = run(*command, cwd=tmp_path, site=site)
    assert done.returncode == 0, done.stdout


def test_the_custom_pipeline_prints_a_verdict_for_every_case(tmp_path):
    done = run(sys.executable, str(EXAMPLES / "custom_pipeline.py"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert sum(line.startswith("case-") for line in done.stdout.splitlines()) == 8
