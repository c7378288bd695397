from __future__ import annotations

import json
import sys

import pytest
import torch

from lesionforge.kernels import diagnostics, native
from lesionforge.kernels.dispatch import Backend, Op


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
    facts = {"op", "backend", "available", "reason", "reservation", "max_error"}
    assert set(rows["extract_masks", "reference"]) == facts
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


@pytest.fixture
def noise_alone(monkeypatch):
    """Seeded noise is quickly timed."""
    monkeypatch.setattr(diagnostics, "FOLDERS", ("seeded_noise",))
    monkeypatch.setattr(diagnostics, "BUDGET_S", 0.0)


@pytest.mark.usefixtures("noise_alone")
def test_bench_compares_every_backend_with_both_baselines(cli):
    result = cli("kernels", "--bench", "--json")
    assert result.exit_code == 0
    found = json.loads(result.stdout)
    usable = {(row["op"], row["backend"]) for row in found["kernels"] if row["available"]}
    timed = {(row["op"], row["contender"]): row for row in found["timings"]}
    assert usable <= set(timed)
    for op, _ in usable:
        rows = [row for (timed_op, _), row in timed.items() if timed_op == op]
        assert sum(row["automatic"] for row in rows) == 1
        released = next(row for row in rows if row["baseline"] == "reference method")
        for row in rows:
            assert row["seconds"] > 0
            if row is not released:
                assert row["vs_reference_method"] == pytest.approx(released["seconds"] / row["seconds"])
            assert (row["vs_best_torch"] is None) == (row["baseline"] == "best torch")


@pytest.mark.usefixtures("noise_alone", "without_native")
def test_bench_prints_a_table_below_the_first(cli):
    result = cli("kernels", "--bench")
    assert result.exit_code == 0
    lines = result.stdout.splitlines()
    header = next(line for line in lines if "vs reference method" in line)
    assert header.split("  ")[0] == "operation" and "vs best torch" in header and "median" in header
    below = [line.rstrip() for line in lines[lines.index(header) + 1 :]]
    assert below[0].split(maxsplit=1) == ["philox_u32", "16 cases of 3x64x64, cpu"]
    chosen = next(line for line in below if "*" in line)
    assert chosen.startswith("  reference *") and chosen.endswith("lesionforge in plain torch")
    assert " ms " in chosen and "x " in chosen


@pytest.mark.usefixtures("noise_alone")
def test_without_bench_nothing_is_timed(cli):
    assert "timings" not in json.loads(cli("kernels", "--json").stdout)


def test_the_table_tells_what_serves_by_name_alone(cli, monkeypatch):
    new = Backend("new", torch.clone, lambda *tensors: None, lambda *tensors: "nobody has measured it")
    op = Op("doubling", new, Backend("reference", torch.clone, lambda *tensors: None))
    monkeypatch.setattr("lesionforge.kernels.seeded_noise.OPS", (op,))
    monkeypatch.setattr(diagnostics, "FOLDERS", ("seeded_noise",))
    row = cli("kernels").stdout.splitlines()[1]
    assert row.rstrip().endswith("available, not taken by automatic choice: nobody has measured it")
