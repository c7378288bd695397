from __future__ import annotations

import json
import subprocess
import sys

import pytest

HEAVY = {"torch", "diffusers", "transformers", "scipy", "matplotlib", "skimage"}
PROGRAM = """
import json, sys
from typer.testing import CliRunner
from lesionforge.cli.main import app
result = CliRunner().invoke(app, sys.argv[1:], prog_name="lesionforge")
print(json.dumps([result.exit_code, result.output, sorted({name.split(".")[0] for name in sys.modules})]))
"""


def loaded_by(*arguments):
    """Exit code, output and top-level modules that a fresh interpreter has loaded after the command."""
    done = subprocess.run([sys.executable, "-c", PROGRAM, *arguments], check=True, capture_output=True, text=True)
    code, output, modules = json.loads(done.stdout.splitlines()[-1])
    return code, output, set(modules)


@pytest.mark.parametrize("arguments", [["--help"], ["run", "--help"], ["plugins", "--help"], ["--version"]])
def test_help_loads_next_to_nothing(arguments):
    code, output, modules = loaded_by(*arguments)
    assert code == 0 and "lesionforge" in output
    assert not modules & (HEAVY | {"numpy", "PIL"})


@pytest.mark.parametrize("arguments", [["plugins", "list"], ["plugins", "show", "ddpm"]])
def test_plugins_are_listed_without_what_they_work_with(arguments):
    code, output, modules = loaded_by(*arguments)
    assert code == 0 and "ddpm" in output
    assert not modules & (HEAVY | {"numpy"})


@pytest.mark.parametrize("verb", [["run"], ["tune", "--search", "phantom.hair=0..1", "--metric", "kept"]])
def test_a_dry_run_loads_no_network_library(verb):
    code, output, modules = loaded_by(*verb, "phantom(size=64) | mask-quality", "--dry-run")
    assert code == 0 and "mask-quality" in output
    assert not modules & HEAVY


def test_every_verb_explains_itself():
    verbs = ["run", "train", "study", "tune", "demo", "verify", "regenerate", "report", "explain", "kernels"]
    verbs = [[verb] for verb in verbs] + [["plugins", verb] for verb in ("list", "show", "check")]
    program = (
        "import sys\nfrom typer.testing import CliRunner\nfrom lesionforge.cli.main import app\n"
        f"for verb in {[*verbs, ['data', 'inspect'], ['data', 'export']]!r}:\n"
        "    result = CliRunner().invoke(app, [*verb, '--help'])\n"
        "    assert result.exit_code == 0 and 'Usage:' in result.output, verb\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)


@pytest.mark.parametrize(
    ("typed", "offered"),
    [
        ("plugins ", "check"),
        ("plugins show ddp", "ddpm"),
        ("run --prec", "--precision"),
        ("data export --to co", "coco"),
    ],
)
def test_the_shell_completes(process, typed, offered, monkeypatch):
    monkeypatch.setenv("_LESIONFORGE_COMPLETE", "complete_bash")
    words = f"lesionforge {typed}"
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(len(words.split(" ")) - 1))
    program = "from lesionforge.cli.main import main; main()"
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True)
    assert offered in done.stdout.split(), done.stderr
