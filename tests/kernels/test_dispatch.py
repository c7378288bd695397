from __future__ import annotations

import logging
import subprocess
import sys

import pytest
import torch

from lesionforge.kernels import BackendUnavailable, native, seeded_normal
from lesionforge.kernels.diagnostics import kernel_diagnostics
from lesionforge.kernels.dispatch import Backend, Op

MISSING = "the native module is not built"


def small_only(*tensors: torch.Tensor) -> str | None:
    return next((f"{len(t)} rows are too many" for t in tensors if len(t) > 2), None)


@pytest.fixture
def doubling() -> Op:
    fast = Backend("fast", lambda x: x * 2, small_only)
    return Op("doubling", fast, Backend("reference", lambda x: x + x, lambda *tensors: None))


@pytest.fixture
def without_native(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "lesionforge._native", None)
    native._load.cache_clear()
    yield
    native._load.cache_clear()


def test_automatic_choice_takes_the_first_without_objection(doubling: Op) -> None:
    assert doubling.choose("auto", torch.zeros(2)).name == "fast"
    assert doubling.choose("auto", torch.zeros(3)).name == "reference"


def test_the_choice_is_logged_once_with_what_was_passed_over(doubling: Op, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.INFO, logger="lesionforge.kernels"):
        for _ in range(3):
            doubling.choose("auto", torch.zeros(3))
    assert [record.getMessage() for record in caplog.records] == [
        "doubling: backend reference (fast: 3 rows are too many)"
    ]


def test_a_backend_asked_for_by_name_raises_its_reason(doubling: Op) -> None:
    assert doubling.choose("fast", torch.zeros(1)).name == "fast"
    with pytest.raises(BackendUnavailable, match="doubling: backend 'fast' cannot serve: 3 rows are too many"):
        doubling.choose("fast", torch.zeros(3))


def test_an_unknown_backend_names_those_there_are(doubling: Op) -> None:
    with pytest.raises(BackendUnavailable, match="no backend 'triton'; there are auto, fast, reference"):
        doubling.choose("triton", torch.zeros(1))


def test_a_backend_with_a_reservation_serves_by_name_alone() -> None:
    new = Backend("new", torch.clone, lambda *tensors: None, lambda *tensors: "nobody has measured it")
    op = Op("op", new, Backend("reference", torch.clone, lambda *tensors: None))
    assert op.choose("auto", torch.zeros(1)).name == "reference"
    assert op.choose("new", torch.zeros(1)) is new
    assert [row["reservation"] for row in op.diagnose()] == ["nobody has measured it", None]


def test_no_backend_at_all_tells_every_reason() -> None:
    op = Op(
        "none", Backend("fast", torch.clone, small_only), Backend("slow", torch.clone, lambda *tensors: "it sleeps")
    )
    with pytest.raises(BackendUnavailable, match="fast: 3 rows are too many; slow: it sleeps"):
        op.choose("auto", torch.zeros(3))


def test_cpu_backend_refuses_tensors_elsewhere() -> None:
    reason = native.why_not(torch.empty(1, device="meta"))
    assert reason is not None
    assert "main memory" in reason


@pytest.mark.usefixtures("without_native")
def test_without_the_native_module_the_reference_serves_and_says_so(caplog: pytest.LogCaptureFixture) -> None:
    from lesionforge.kernels.seeded_noise import _normal

    _normal._announced.clear()
    with caplog.at_level(logging.INFO, logger="lesionforge.kernels"):
        made = seeded_normal([3], (5,))
    assert torch.equal(made, seeded_normal([3], (5,), backend="reference"))
    assert f"seeded_normal: backend reference (cpu: {MISSING}" in caplog.text
    with pytest.raises(BackendUnavailable, match=MISSING):
        seeded_normal([3], (5,), backend="cpu")
    with pytest.raises(ImportError, match=MISSING):
        native.module()


def probed(run) -> Op:
    fast = Backend("fast", run, small_only)
    reference = Backend("reference", lambda x: x + x, lambda *tensors: None)
    return Op("doubling", fast, reference, probe=lambda device: (torch.arange(2.0, device=device),))


@pytest.mark.parametrize(("offset", "error"), [(0.0, 0.0), (-0.25, 0.25), (float("inf"), float("inf"))])
def test_diagnostics_measure_the_largest_error_on_the_probe(offset: float, error: float) -> None:
    fast, reference = probed(lambda x: x * 2 + offset).diagnose(measure=True)
    facts = {"available": True, "reason": None, "reservation": None, "max_error": error}
    assert fast == {"op": "doubling", "backend": "fast", **facts}
    assert reference["max_error"] is None
    assert "max_error" not in probed(lambda x: x * 2 + offset).diagnose()[0]


class OutOfResources(Exception):
    """As Triton's: no RuntimeError."""


@pytest.mark.parametrize("error", [RuntimeError, OutOfResources])
def test_diagnostics_show_a_backend_that_fails_as_such(error: type[Exception]) -> None:
    def failing(x: torch.Tensor) -> torch.Tensor:
        raise error("no kernel image is available\nfor this device")

    fast = probed(failing).diagnose(measure=True)[0]
    assert (fast["available"], fast["max_error"]) == (False, None)
    assert fast["reason"] == f"it fails: {error.__name__}: no kernel image is available"


@pytest.mark.usefixtures("without_native")
def test_diagnostics_carry_the_reason() -> None:
    rows = {(row["op"], row["backend"]): row for row in kernel_diagnostics(measure=False)}
    assert rows["seeded_normal", "reference"] == {
        "op": "seeded_normal",
        "backend": "reference",
        "available": True,
        "reason": None,
        "reservation": None,
    }
    assert rows["seeded_normal", "cpu"]["available"] is False
    assert MISSING in str(rows["seeded_normal", "cpu"]["reason"])


def test_a_native_module_that_does_not_load_is_told_apart(tmp_path, monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(name: str, package: str) -> None:
        raise ImportError("libgomp.so.1: cannot open shared object file")

    monkeypatch.setattr(native, "import_module", broken)
    native._load.cache_clear()
    try:
        assert native.why_missing() == ("the native module does not load: libgomp.so.1: cannot open shared object file")
    finally:
        native._load.cache_clear()


def test_the_hook_is_called_through_pluggy() -> None:
    import pluggy

    from lesionforge.kernels import diagnostics

    class Specification:
        @pluggy.HookspecMarker("lesionforge")
        def kernel_diagnostics(self, measure: bool) -> list[dict[str, str | float | None]]: ...

    manager = pluggy.PluginManager("lesionforge")
    manager.add_hookspecs(Specification)
    manager.register(diagnostics)
    assert manager.hook.kernel_diagnostics(measure=True) == [kernel_diagnostics(measure=True)]


def test_importing_the_workshop_loads_no_torch() -> None:
    program = (
        "import sys, lesionforge.kernels, lesionforge.kernels.diagnostics\n"
        "assert 'torch' not in sys.modules and 'numpy' not in sys.modules\n"
        "from lesionforge.kernels import seeded_normal\n"
        "assert 'torch' in sys.modules\n"
    )
    subprocess.run([sys.executable, "-c", program], check=True)
