"""The table of networks says what the networks have."""

from __future__ import annotations

import re
from pathlib import Path

import pytest
import torch

from lesionforge.core.architectures import default_parameter_count, parameter_count
from lesionforge.core.registry import default_registry

PAGE = (Path(__file__).parents[2] / "docs" / "segmentation.md").read_text()
COUNTS = {
    name: int(count.replace(",", "")) for name, count in re.findall(r"^\| `([\w-]+)` \| .* \| ([\d,]+) \|", PAGE, re.M)
}
# Its encoder reads numbers from tensors while it is built, which the meta device has none of.
READS_NUMBERS = {"segformer"}


def test_every_network_is_in_the_table():
    known = {entry.name for entry in default_registry().entries("architecture") if entry.distribution == "lesionforge"}
    assert known <= COUNTS.keys()


@pytest.mark.parametrize("name", COUNTS)
def test_the_table_counts_parameters(name):
    found = [entry for entry in default_registry().entries("architecture") if entry.name == name]
    if not found:
        pytest.skip(f"{name} is not installed")
    if name in READS_NUMBERS:
        assert default_parameter_count(found[0]) == COUNTS[name]
        return
    with torch.device("meta"):
        assert parameter_count(found[0].plugin().build()) == COUNTS[name]


def test_the_example_network_runs():
    code = re.search(r"```python\n(.*?)```", PAGE, flags=re.DOTALL)
    assert code
    names: dict[str, object] = {}
    exec(compile(code[1], "segmentation.md", "exec"), names)
    (plain,) = names["register_plugins"]()
    assert plain().build()(torch.zeros(2, 3, 8, 12)).shape == (2, 1, 8, 12)
