from __future__ import annotations

import json
from pathlib import Path

import pytest

from lesionforge.cli import recipe_argument

RECIPE = """
description = "stands for the demo"

[data]
source = "phantom(count=12, size=32)"

[synthesis]
count = 4

[[stage]]
use = "phantom"

[[stage]]
use = "mask-quality"
"""


@pytest.fixture
def shipped(tmp_path, monkeypatch):
    folder = tmp_path / "shipped"
    folder.mkdir()
    (folder / "demo.toml").write_text(RECIPE)
    monkeypatch.setattr(recipe_argument, "SHIPPED", folder)


def test_the_demo_ends_with_a_report_and_says_where(cli, shipped):
    result = cli("demo")
    assert result.exit_code == 0, result.stderr
    assert "runs/demo/report/index.html" in result.stdout and "phantoms" in result.stdout
    assert Path("runs/demo/report/index.html").is_file()


def test_the_demo_works_a_second_time_and_refuses_to_become_another(cli, shipped):
    first, second = cli("demo", "--json"), cli("demo", "--json")
    assert json.loads(first.stdout) == json.loads(second.stdout)
    assert json.loads(first.stdout)["phantom"] is True
    other = cli("demo", "--count", 5)
    assert other.exit_code == 2 and "started with another recipe" in other.stderr
    assert json.loads(cli("demo", "--count", 5, "-o", "other", "--json").stdout)["cases"] == 5


def test_a_built_in_recipe_runs_by_its_name(cli, shipped):
    plan = json.loads(cli("run", "demo", "--count", 7, "--dry-run", "--json").stdout)
    assert (plan["cases"], plan["stages"][0]["use"]) == (7, "phantom")
