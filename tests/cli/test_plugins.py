from __future__ import annotations

import json

import pytest


def test_plugins_are_listed_by_role(cli):
    result = cli("plugins", "list")
    lines = [line.rstrip() for line in result.stdout.splitlines()]
    assert result.exit_code == 0
    assert lines.index("generators") < lines.index("annotators") < lines.index("filters") < lines.index("trainers")
    blobs = next(line for line in lines if line.startswith("  blobs "))
    assert "toy-distribution 1.0" in blobs and "Draws grey images whose brightness is random." in blobs


def test_one_role(cli):
    found = json.loads(cli("plugins", "list", "--role", "trainer", "--json").stdout)
    assert {plugin["role"] for plugin in found["plugins"]} == {"trainer"}
    assert "mean" in {plugin["name"] for plugin in found["plugins"]}


def test_an_unknown_role_is_one_line(cli):
    result = cli("plugins", "list", "--role", "wizard")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no role is called 'wizard'; there are generator, annotator, filter, ")


def test_broken_and_duplicate_plugins_are_shown_for_what_they_are(cli, on_path, strangers):
    on_path(strangers)
    result = cli("plugins", "list")
    assert result.exit_code == 0
    told = " ".join(result.stdout.split())
    assert "broken broken_toys broken-distribution RuntimeError: no [bold]luck[/bold]" in told
    assert "at all" not in told
    assert result.stdout.count("two distributions provide this name") == 2
    found = json.loads(cli("plugins", "list", "--json").stdout)
    assert [plugin["distribution"] for plugin in found["plugins"] if plugin["duplicate"]] == [
        "copycat-distribution",
        "toy-distribution",
    ]
    assert [broken["entry_point"] for broken in found["broken"]] == ["broken_toys"]


def test_a_broken_or_duplicate_plugin_fails_a_run_only_if_asked_for(cli, on_path, strangers):
    on_path(strangers)
    assert cli("run", "threshold", "--dry-run").exit_code == 0
    broken, twice = cli("run", "broken_toys"), cli("run", "blobs")
    assert broken.exit_code == twice.exit_code == 2
    assert "of broken-distribution is broken: RuntimeError" in broken.stderr
    assert "provided by both copycat-distribution and toy-distribution" in twice.stderr


def test_every_key_is_explained(cli):
    result = cli("plugins", "show", "mean")
    assert result.exit_code == 0
    assert "Learns the mean image." in result.stdout
    rows = {line.split()[0]: " ".join(line.split()[1:]) for line in result.stdout.splitlines() if line.strip()}
    assert rows["steps"] == "6 optimisation steps integer ≥ 1"
    assert rows["start"] == "checkpoint to start from checkpoint"
    assert "number from 0 to 100" in cli("plugins", "show", "brightness").stdout


def test_the_parameters_of_a_network_are_counted(cli):
    assert "31,037,633 trainable parameters with the defaults" in cli("plugins", "show", "dilated-unet").stdout
    (found,) = json.loads(cli("plugins", "show", "dilated-unet", "--json").stdout)["plugins"]
    assert found["parameters"] == 31_037_633


def test_all_roles_of_a_name_are_explained(cli):
    both = cli("plugins", "show", "phantom", "--json")
    assert {plugin["role"] for plugin in json.loads(both.stdout)["plugins"]} == {"generator", "source"}
    one = cli("plugins", "show", "phantom", "--role", "source", "--json")
    (source,) = json.loads(one.stdout)["plugins"]
    assert source["config"]["properties"]["count"]["description"] == "number of images"


def test_an_unknown_plugin_is_one_line(cli):
    result = cli("plugins", "show", "nobody")
    assert result.exit_code == 2
    assert result.stderr.startswith("error: no plugin is called 'nobody'; there are ")
    assert len(result.stderr.splitlines()) == 1


def test_a_good_plugin_keeps_its_contract(cli):
    result = cli("plugins", "check", "blobs(size=8)")
    assert result.exit_code == 0, result.output
    assert all(line.startswith("kept ") for line in result.stdout.splitlines())
    assert "same seeds, same bits" in result.stdout


@pytest.fixture
def careless(cli, on_path, tmp_path):
    folder = tmp_path / "careless"
    folder.mkdir()
    source = (
        "import torch\nimport lesionforge as lf\n\n"
        'class Careless(lf.Generator):\n    """Draws from torch\'s own generator."""\n\n    name = "careless"\n\n'
        "    def generate(self, batch):\n        return batch.with_columns(images=torch.rand(len(batch), 3, 8, 8))\n\n"
        "@lf.hookimpl\ndef register_plugins():\n    return [Careless]\n"
    )
    (folder / "careless_toys.py").write_text(source)
    info = folder / "careless-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: careless\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[lesionforge]\ncareless_toys = careless_toys\n")
    on_path(folder)


def test_a_careless_plugin_is_told_which_rules_it_breaks(cli, careless):
    result = cli("plugins", "check", "careless", "--json")
    assert result.exit_code == 2
    kept = {rule["rule"]: rule["kept"] for rule in json.loads(result.stdout)["rules"]}
    assert kept["has a name and a docstring"] and not kept["same seeds, same bits"]
    assert not kept["global random state is left alone"]
    shown = cli("plugins", "check", "careless")
    assert shown.exit_code == 2 and "broken  same seeds, same bits: images differs" in shown.stdout
