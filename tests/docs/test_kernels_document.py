"""docs/kernels.md has a section for every operation: its equation, its backends, and what automatic choice takes."""

from __future__ import annotations

import re
from importlib import import_module
from pathlib import Path

import pytest

from lesionforge import kernels
from lesionforge.kernels.diagnostics import FOLDERS

DOCUMENT = (Path(__file__).parents[2] / "docs" / "kernels.md").read_text()
SECTIONS = dict(re.findall(r"^## (.+)\n((?:(?!## ).*\n?)*)", DOCUMENT, flags=re.MULTILINE))
OPERATIONS = sorted(set(kernels.__all__) - {"BackendUnavailable", "stream_of"})


def section(operation: str) -> str:
    (text,) = (text for heading, text in SECTIONS.items() if f"`{operation}`" in heading)
    return text


@pytest.mark.parametrize("operation", OPERATIONS)
def test_every_operation_has_its_equation(operation: str) -> None:
    assert re.search(r"^    .* = ", section(operation), flags=re.MULTILINE)


@pytest.mark.parametrize("folder", FOLDERS)
def test_every_backend_is_described(folder: str) -> None:
    words = {"cpu": "C++", "triton": "Triton", "cuda": "CUDA", "torch": "torch", "reference": "reference"}
    for op in import_module(f"lesionforge.kernels.{folder}").OPS:
        text = section(op.name).lower()
        missing = [name for name in op.backends if words.get(name, name).lower() not in text]
        assert not missing
        assert "`auto` takes" in section(op.name) or 'strategy = "auto"' in section(op.name)
