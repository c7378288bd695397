from __future__ import annotations

import json
import sys

import pytest

from lesionforge.kernels import native


@pytest.fixture
def without_native(monkeypatch):
    monkeypatch.setitem(sys.modules, "lesionforge._native", None)
    native._load.cache_clear()
    yield
    native._load.cache_clear()


def test_every_operation_has_a_reference_and_small_errors(cli):
    result = cli("kernels", "--json")
    assert result.exit_code == 0
    rows = {(row["op"], row["backend"]): row for row in json.loads(result.stdout)["kernels"]}
    assert {"op", "backend", "available", "reason", "max_error"} == set(rows["extract_masks", "reference"])
    for op, backend in rows:
        row = rows[op, backend]
        assert rows[op, "reference"]["available"]
        assert row["available"] == (row["reason"] is None)
        assert backend != "reference" or row["max_error"] is None
    for op, allowed in (("seeded_normal", 1e-6), ("philox_u32", 0), ("otsu_threshold", 0), ("extract_masks", 0)):
        if rows[op, "cpu"]["available"]:
            assert rows[op, "cpu"]["max_error"] <= allowed


@pytest.mark.usefixtures("without_native")
def test_the_table_tells_why_a_backend_is_missing(cli):
    result = cli("kernels")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    assert lines[0].split() == ["operation", "backend", "largest", "error", "state"]
    row = next(line for line in lines if line.startswith("extract_masks "))
    assert row.split()[1] == "cpu" and "the native module is not built" in row
    below = next(line for line in lines[lines.index(row) :] if line.split()[0] == "reference")
    assert below.split() == ["reference", "available"]
