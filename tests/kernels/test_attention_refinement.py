from __future__ import annotations

from functools import partial
from pathlib import Path

import pytest
import torch
from torch import Tensor

from lesionforge.kernels import BackendUnavailable, attention_refinement, native
from lesionforge.kernels.attention_native import instruction_sets, why_not
from lesionforge.kernels.map_refinement import blocked, cpu, memory

CPU = pytest.param("cpu", marks=pytest.mark.skipif(why_not() is not None, reason=str(why_not())))
STRATEGIES = ["matrix_free", "mean_map"]
SHAPES = [(2, 3, 131, 40, 1), (1, 2, 64, 16, 3), (3, 1, 1, 5, 2), (1, 5, 77, 80, 2)]


def tensors(
    batch: int, layers: int, tokens: int, depth: int, columns: int, dtype: torch.dtype
) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(tokens)
    query, key = torch.rand((2, batch, layers, tokens, depth), generator=rng, dtype=torch.float64).mul(4).sub(2)
    values = torch.rand((batch, tokens, columns), generator=rng, dtype=torch.float64)
    return query.to(dtype), key.to(dtype), values.to(dtype)


def literally(query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float) -> Tensor:
    query, key, values = query.double(), key.double(), values.double()
    maps = torch.exp(torch.einsum("blpd,blqd->blpq", query, key) * scale)
    mean = (maps / maps.sum(-1, keepdim=True)).mean(1)
    return torch.linalg.matrix_power(mean, steps) @ values


@pytest.fixture(params=["reference", "torch", CPU])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("steps", [0, 1, 4])
def test_is_the_matrix_power(backend: str, strategy: str, shape: tuple[int, ...], steps: int) -> None:
    given = tensors(*shape, torch.float32)
    made = attention_refinement(*given, steps=steps, scale=0.4, strategy=strategy, backend=backend)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double(), literally(*given, steps, 0.4), rtol=0, atol=5e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("name", ["reference", "torch"])
def test_float64_is_exact(name: str, strategy: str) -> None:
    given = tensors(2, 3, 65, 24, 2, torch.float64)
    made = attention_refinement(*given, scale=0.3, strategy=strategy, backend=name)
    torch.testing.assert_close(made, literally(*given, 4, 0.3), rtol=0, atol=1e-13)


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("factor", [0.1, 1.0, 6.0])
@pytest.mark.parametrize("shape", SHAPES)
def test_scores_small_and_large(backend: str, shape: tuple[int, ...], factor: float, strategy: str) -> None:
    """AMX takes scores apart into more parts, and their maxima off, where they may be large."""
    query, key, values = tensors(*shape, torch.float32)
    made = attention_refinement(query * factor, key, values, scale=0.4, strategy=strategy, backend=backend)
    true = literally(query * factor, key, values, 4, 0.4)
    torch.testing.assert_close(made.double(), true, rtol=0, atol=5e-6 * max(1, factor))


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs_are_computed_in_float32(backend: str, dtype: torch.dtype) -> None:
    given = tensors(2, 3, 50, 24, 1, dtype)
    made = attention_refinement(*given[:2], given[2].float(), backend=backend)
    torch.testing.assert_close(made.double(), literally(*given, 4, 24**-0.5), rtol=0, atol=5e-6)
    assert attention_refinement(*given, backend=backend).dtype == dtype


def test_autocast_does_not_lower_the_precision(backend: str) -> None:
    given = tensors(1, 2, 40, 16, 1, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = attention_refinement(*given, backend=backend)
    torch.testing.assert_close(made.double(), literally(*given, 4, 0.25), rtol=0, atol=5e-6)


def test_reads_tensors_that_are_not_contiguous(backend: str) -> None:
    query, key, values = tensors(2, 3, 45, 16, 2, torch.float32)
    turned = [query.mT.contiguous().mT, key.transpose(1, 2).contiguous().transpose(1, 2), values.mT.contiguous().mT]
    made = attention_refinement(*turned, backend=backend)
    torch.testing.assert_close(made.double(), literally(query, key, values, 4, 0.25), rtol=0, atol=5e-6)


@pytest.mark.parametrize("shape", [(0, 2, 8, 4, 1), (2, 2, 0, 4, 1), (2, 2, 8, 4, 0)])
def test_empty(backend: str, shape: tuple[int, ...]) -> None:
    given = tensors(*shape, torch.float32)
    assert attention_refinement(*given, backend=backend).shape == given[2].shape


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_more_columns_than_the_heads_are_wide(backend: str, strategy: str) -> None:
    given = tensors(1, 2, 30, 4, 11, torch.float32)
    made = attention_refinement(*given, strategy=strategy, backend=backend)
    torch.testing.assert_close(made.double(), literally(*given, 4, 0.5), rtol=0, atol=5e-6)


@pytest.mark.parametrize("name", ["reference", "torch"])
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_gradcheck(name: str, steps: int) -> None:
    given = [tensor.requires_grad_() for tensor in tensors(2, 2, 5, 3, 2, torch.float64)]
    assert torch.autograd.gradcheck(lambda *t: attention_refinement(*t, steps=steps, backend=name), given)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_gradients_keep_to_the_strategy(strategy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(blocked.BLOCK, "cpu", 2 * 400 * 50)
    given = [tensor.requires_grad_() for tensor in tensors(1, 2, 400, 8, 1, torch.float32)]
    loss = attention_refinement(*given, strategy=strategy, backend="torch").square().sum()
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], record_shapes=True) as profile:
        torch.autograd.grad(loss, given)
    products = [event.input_shapes[0] for event in profile.events() if event.name in ("aten::mv", "aten::mm")]
    by_map = [shape for shape in products if shape == [400, 400]]
    assert bool(by_map) == (strategy == "mean_map")


@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("steps", [0, 1, 3])
def test_gradcheck_by_strategy(strategy: str, steps: int) -> None:
    given = [tensor.requires_grad_() for tensor in tensors(2, 2, 5, 3, 2, torch.float64)]
    refine = partial(attention_refinement, steps=steps, strategy=strategy, backend="torch")
    assert torch.autograd.gradcheck(refine, given)


def test_gradients_agree(backend: str) -> None:
    given = tensors(2, 3, 70, 16, 2, torch.float32)
    weight = torch.linspace(-1, 1, 70)[:, None]
    grads = []
    for dtype, name in ((torch.float32, backend), (torch.float64, "reference")):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in given]
        loss = (attention_refinement(*leaves, backend=name) * weight.to(dtype)).sum()
        grads.append([grad.double() for grad in torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=5e-6)


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("instructions", instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("strategy", STRATEGIES)
def test_every_instruction_set_and_thread_count(
    strategy: str, dtype: torch.dtype, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, _ = tensors(2, 3, 301, 40, 2, dtype)
    values = tensors(2, 3, 301, 40, 2, torch.float32)[2]
    true = literally(query, key, values, 4, 0.2)
    first = None
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        made = cpu.refine(query, key, values, 4, 0.2, strategy, instructions)
        torch.testing.assert_close(made.double(), true, rtol=0, atol=5e-6)
        first = made if first is None else first
        assert torch.equal(made, first), "bits depend on the number of threads"


@pytest.mark.skipif("amx" not in instruction_sets(), reason="this CPU or build has no AMX")
def test_only_amx_multiplies_bfloat16_as_it_is() -> None:
    query = torch.zeros(1, 8, 4, dtype=torch.bfloat16)
    out = torch.empty(8, 1)
    given = (query.data_ptr(), query.data_ptr(), out.data_ptr(), 0, out.data_ptr(), 1, 8, 4, 1, 1.0, 1, True)
    with pytest.raises(ValueError, match="avx2 reads float32 only"):
        native.module().mean_attention(*given, "avx2")


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("instructions", instruction_sets())
def test_a_map_larger_than_the_caches(instructions: str) -> None:
    query, key, values = tensors(1, 1, 1456, 8, 1, torch.float32)
    made = cpu.refine(query, key, values, 2, 0.3, "mean_map", instructions)
    torch.testing.assert_close(made.double(), literally(query, key, values, 2, 0.3), rtol=0, atol=5e-6)


def test_large_scores_do_not_overflow_and_nan_shows(backend: str) -> None:
    query, key, values = tensors(1, 1, 40, 8, 1, torch.float32)
    made = attention_refinement(query * 1e3, key * 1e3, values, backend=backend)
    assert made.isfinite().all()
    query[0, 0, 3, 0] = torch.nan
    made = attention_refinement(query, key, values, steps=1, backend=backend)
    assert made[0, :, 0].isnan().nonzero().tolist() == [[3]]


@pytest.mark.parametrize("name", ["torch", CPU])
def test_opcheck(name: str) -> None:
    given = [tensor.requires_grad_() for tensor in tensors(2, 2, 9, 4, 1, torch.float32)]
    torch.library.opcheck(torch.ops.lesionforge.attention_refinement, (*given, 3, 0.5, "auto", name))


def test_compiles_as_one_graph() -> None:
    given = [tensor.requires_grad_() for tensor in tensors(1, 2, 20, 8, 1, torch.float32)]
    compiled = torch.compile(lambda *t: attention_refinement(*t).square().sum(), backend="aot_eager", fullgraph=True)
    eager = attention_refinement(*given).square().sum()
    made = torch.autograd.grad(compiled(*given), given)
    torch.testing.assert_close(made, torch.autograd.grad(eager, given))


def test_auto_takes_the_map_where_it_fits(monkeypatch: pytest.MonkeyPatch) -> None:
    device = torch.device("cpu")
    assert memory.free_bytes(device) > 1 << 20
    monkeypatch.setattr(memory, "free_bytes", lambda device: 4 * 1000**2)
    assert memory.strategy_for(700, 4, torch.float32, device) == "mean_map"
    assert memory.strategy_for(700, 1, torch.float32, device) == "matrix_free"
    assert memory.strategy_for(1000, 4, torch.float32, device) == "matrix_free"
    monkeypatch.setattr(memory, "free_bytes", lambda device: None)
    assert memory.strategy_for(2, 4, torch.float32, device) == "matrix_free"


def test_free_memory_is_what_the_machine_and_the_container_leave(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    device, limit = torch.device("cpu"), tmp_path / "limit"
    (tmp_path / "used").write_text("2000\n")
    (tmp_path / "stat").write_text("anon 1500\ninactive_file 400\nactive_file 100\n")
    monkeypatch.setattr(memory, "CONTROL_GROUPS", ((limit, tmp_path / "used", tmp_path / "stat", "inactive_file"),))
    limit.write_text("5000\n")
    assert memory.free_bytes(device) == 3400
    limit.write_text("max\n")
    assert memory.free_bytes(device) == pytest.approx(memory._available(Path("/proc/meminfo")), rel=0.2)
    monkeypatch.setattr(memory, "_available", lambda meminfo: None)
    assert memory.free_bytes(device) is None


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"key": torch.zeros(1, 2, 9, 4)}, ValueError, "key must have shape"),
        ({"key": torch.zeros(1, 2, 8, 4).double()}, TypeError, "one floating dtype"),
        ({"query": torch.zeros(2, 8, 4)}, ValueError, "must be \\(B, L, N, d\\)"),
        ({"values": torch.zeros(1, 9, 1)}, ValueError, "values must be"),
        ({"values": torch.zeros(1, 8, 1, dtype=torch.int64)}, TypeError, "floating point"),
        ({"steps": -1}, ValueError, "steps"),
        ({"scale": float("nan")}, ValueError, "scale"),
        ({"strategy": "fast"}, ValueError, "strategy"),
        ({"backend": "fast"}, BackendUnavailable, "no backend"),
    ],
)
def test_errors(change: dict, error: type[Exception], words: str) -> None:
    given = {"query": torch.zeros(1, 2, 8, 4), "key": torch.zeros(1, 2, 8, 4), "values": torch.zeros(1, 8, 1)}
    with pytest.raises(error, match=words):
        attention_refinement(**{**given, **change})


def test_native_backend_refuses_float64() -> None:
    with pytest.raises(BackendUnavailable, match=r"float64|native"):
        attention_refinement(*tensors(1, 1, 4, 4, 1, torch.float64), backend="cpu")
