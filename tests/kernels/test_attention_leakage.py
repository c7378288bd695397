from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lesionforge.kernels import BackendUnavailable, attention_leakage
from lesionforge.kernels.attention_native import instruction_sets, why_not
from lesionforge.kernels.map_leakage import cpu

CPU = pytest.param("cpu", marks=pytest.mark.skipif(why_not() is not None, reason=str(why_not())))
SHAPES = [(2, 3, 131, 40), (1, 2, 64, 16), (3, 1, 2, 5), (1, 5, 77, 80), (2, 2, 33, 56)]


def tensors(batch: int, layers: int, tokens: int, depth: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    rng = torch.Generator().manual_seed(tokens)
    query, key = torch.rand((2, batch, layers, tokens, depth), generator=rng, dtype=torch.float64).mul(4).sub(2)
    mask = torch.rand((batch, tokens), generator=rng) > 0.6
    mask[:, 0], mask[:, 1:2] = True, False
    return query.to(dtype), key.to(dtype), mask


def literally(query: Tensor, key: Tensor, mask: Tensor, regions: str, reduction: str, scale: float) -> Tensor:
    """Pixel by pixel, as DiDGen's released code goes."""
    attention = torch.softmax(query.double() @ key.double().mT * scale, -1).mean(1)
    columns = []
    for inside in (mask.bool(), ~mask.bool())[: 2 if regions == "both" else 1]:
        values = []
        for case, region in enumerate(inside):
            rows = [attention[case, p][~region].sum() / (~region).sum() for p in region.nonzero().flatten()]
            if not rows or region.all():
                values.append(attention.new_zeros(()))
            else:
                values.append(torch.stack(rows).sum() / (len(rows) if reduction == "mean" else 1))
        columns.append(torch.stack(values) if values else attention.new_zeros(0))
    return torch.stack(columns, -1) if regions == "both" else columns[0]


def gradients(dtype: torch.dtype, made, query: Tensor, key: Tensor) -> tuple[Tensor, list[Tensor]]:
    leaves = [query.to(dtype).requires_grad_(), key.to(dtype).requires_grad_()]
    value = made(*leaves)
    weight = torch.linspace(1, 2, value.numel(), dtype=value.dtype).view(value.shape) * query.shape[2]
    return value.detach().double(), [grad.double() for grad in torch.autograd.grad((value * weight).sum(), leaves)]


@pytest.fixture(params=["reference", "torch", CPU])
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.mark.parametrize("regions", ["mask", "both"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
@pytest.mark.parametrize("shape", SHAPES)
def test_value_and_gradients(backend: str, regions: str, reduction: str, shape: tuple[int, ...]) -> None:
    query, key, mask = tensors(*shape, torch.float32)
    settings = {"regions": regions, "reduction": reduction, "scale": 0.3}
    made = gradients(torch.float32, lambda q, k: attention_leakage(q, k, mask, backend=backend, **settings), query, key)
    true = gradients(torch.float64, lambda q, k: literally(q, k, mask, **settings), query, key)
    torch.testing.assert_close(made, true, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("regions", ["mask", "both"])
@pytest.mark.parametrize("name", ["reference", "torch"])
def test_gradcheck(name: str, regions: str) -> None:
    query, key, mask = tensors(2, 2, 6, 3, torch.float64)
    leaves = (query.requires_grad_(), key.requires_grad_())
    assert torch.autograd.gradcheck(lambda q, k: attention_leakage(q, k, mask, regions=regions, backend=name), leaves)


@pytest.mark.parametrize("regions", ["mask", "both"])
def test_empty_and_full_masks_leak_nothing(backend: str, regions: str) -> None:
    query, key, mask = tensors(3, 2, 20, 8, torch.float32)
    mask[0], mask[2] = False, True
    leaves = (query.requires_grad_(), key.requires_grad_())
    leakage = attention_leakage(*leaves, mask, regions=regions, backend=backend)
    assert not leakage[[0, 2]].any()
    assert leakage[1].all()
    for grad in torch.autograd.grad(leakage.sum(), leaves):
        assert not grad[[0, 2]].any()
        assert grad[1].any()


@pytest.mark.parametrize("shape", [(0, 2, 8, 4), (2, 2, 0, 4)])
def test_no_cases_or_no_tokens(backend: str, shape: tuple[int, ...]) -> None:
    query, key = torch.zeros(shape, requires_grad=True), torch.zeros(shape)
    leakage = attention_leakage(query, key, torch.zeros(shape[0], shape[2]), regions="both", backend=backend)
    assert leakage.tolist() == [[0.0, 0.0]] * shape[0]
    assert torch.autograd.grad(leakage.sum(), query)[0].shape == shape


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_narrow_inputs(backend: str, dtype: torch.dtype) -> None:
    query, key, mask = tensors(2, 3, 60, 24, dtype)
    made = gradients(dtype, lambda q, k: attention_leakage(q, k, mask, regions="both", backend=backend), query, key)
    true = gradients(torch.float64, lambda q, k: literally(q, k, mask, "both", "mean", 24**-0.5), query, key)
    torch.testing.assert_close(made[0], true[0], rtol=1e-5, atol=1e-6)
    # Gradients are in the inputs' precision.
    torch.testing.assert_close(made[1], true[1], rtol=2e-2, atol=1e-3)


def test_autocast_does_not_lower_the_precision(backend: str) -> None:
    query, key, mask = tensors(1, 2, 40, 16, torch.float32)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        made = attention_leakage(query, key, mask, backend=backend)
    torch.testing.assert_close(made.double(), literally(query, key, mask, "mask", "mean", 0.25), rtol=1e-5, atol=1e-7)


def test_reads_tensors_that_are_not_contiguous(backend: str) -> None:
    query, key, mask = tensors(2, 3, 45, 16, torch.float32)
    turned = query.mT.contiguous().mT, key.transpose(1, 2).contiguous().transpose(1, 2), mask.float()
    made = gradients(torch.float32, lambda q, k: attention_leakage(q, k, turned[2], backend=backend), *turned[:2])
    true = gradients(torch.float64, lambda q, k: literally(q, k, mask, "mask", "mean", 0.25), query, key)
    torch.testing.assert_close(made, true, rtol=1e-5, atol=1e-6)


# Largest error of a gradient, divided by the largest gradient: AMX rounds bfloat16 probabilities by 2^-9, two bfloat16
# parts of float32 by 2^-17; gradients of bfloat16 tensors are rounded by 2^-9 for each region.
GRADIENT_ERRORS = {("amx", torch.bfloat16): 1e-2, ("amx", torch.float32): 4e-5}
ROUNDING = {torch.bfloat16: 2**-8}


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("instructions", instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("factor", [1.0, 20.0])
@pytest.mark.parametrize("shape", [(2, 3, 101, 40), (1, 2, 700, 64), (1, 1, 33, 16)])
def test_every_instruction_set_and_thread_count(
    shape: tuple[int, ...], factor: float, dtype: torch.dtype, instructions: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    query, key, mask = tensors(*shape, torch.float32)
    query, key = query.mul(factor).to(dtype), key.to(dtype)
    mask[-1] = False
    mask[-1, ::20] = True
    true, grads = gradients(torch.float64, lambda q, k: literally(q, k, mask, "both", "sum", 0.3), query, key)
    counts = torch.stack([(~mask).sum(-1), mask.sum(-1)], -1)
    weight = torch.linspace(1, 2, counts.numel(), dtype=torch.float64).view(counts.shape) * shape[2] / counts
    by_row = torch.where(mask, weight[:, :1], weight[:, 1:])[:, None, :, None]
    allowed = max(3e-6 * factor, GRADIENT_ERRORS.get((instructions, dtype), 0), ROUNDING.get(dtype, 0))
    for threads in (1, 2, 5):
        monkeypatch.setattr(torch, "get_num_threads", lambda threads=threads: threads)
        of_query, of_key = torch.zeros_like(query), torch.full((2, *key.shape), torch.nan, dtype=dtype)
        sums = cpu.row_sums(query, key, mask, True, 0.3, of_query, of_key, instructions)
        torch.testing.assert_close(sums / counts, true, check_dtype=False, rtol=1e-5, atol=1e-6)
        of_keys = (of_key * weight.T[:, :, None, None, None]).sum(0)
        for made, grad in ((of_query * by_row, grads[0]), (of_keys, grads[1])):
            assert (made - grad).abs().max() <= allowed * grad.abs().max()


@pytest.mark.skipif(why_not() is not None, reason=str(why_not()))
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("instructions", instruction_sets())
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("columns", [1, 2])
def test_kept_gradients_are_scaled_and_rounded_once(columns: int, dtype: torch.dtype, instructions: str) -> None:
    rng = torch.Generator().manual_seed(columns)
    of_query = torch.randn((2, 3, 301, 5), generator=rng).to(dtype)
    of_key = torch.randn((columns, 2, 3, 301, 5), generator=rng).to(dtype)
    by_row, by_column = torch.rand((2, 301), generator=rng), torch.rand((columns, 2), generator=rng)
    by_row[:, ::3] = 0
    of_query[:, :, ::3] = torch.nan  # of rows that are in no region
    of_key[0, 1, 2, 300, 4] = torch.nan
    query, key = cpu.scaled(of_query, of_key, by_row, by_column, instructions)
    rtol = 2e-7 if dtype == torch.float32 else 2**-8
    true = of_query.double().nan_to_num() * by_row[:, None, :, None]
    torch.testing.assert_close(query.double(), true, rtol=rtol, atol=0)
    true = (of_key.double() * by_column[:, :, None, None, None]).sum(0)
    torch.testing.assert_close(key.double(), true, rtol=rtol, atol=1e-7, equal_nan=True)


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16, torch.float16])
@pytest.mark.parametrize("name", ["torch", CPU])
def test_a_graph_that_is_kept_gives_the_same_gradients_again(name: str, dtype: torch.dtype) -> None:
    query, key, mask = tensors(2, 2, 40, 8, dtype)
    leaves = (query.requires_grad_(), key.requires_grad_())
    leakage = attention_leakage(*leaves, mask, regions="both", backend=name).sum()
    once = torch.autograd.grad(leakage, leaves, retain_graph=True)
    assert once[0].any()
    for scale in (2.0, 1.0):
        again = torch.autograd.grad(leakage, leaves, torch.tensor(scale), retain_graph=True)
        torch.testing.assert_close(again, tuple(grad * scale for grad in once), rtol=1e-2, atol=1e-6)


@pytest.mark.parametrize("name", ["torch", CPU])
@pytest.mark.parametrize(("regions", "columns"), [("mask", 1), ("both", 2)])
def test_keeps_one_array_like_the_query_and_one_like_the_key_a_region(name: str, regions: str, columns: int) -> None:
    query, key, mask = tensors(1, 2, 256, 8, torch.float32)
    leaves = (query.requires_grad_(), key.requires_grad_())
    kept: list[Tensor] = []

    def keep(tensor: Tensor) -> Tensor:
        kept.append(tensor)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
        leakage = attention_leakage(*leaves, mask, regions=regions, backend=name)
    assert sum(tensor.numel() for tensor in kept) <= query.numel() * (1 + columns) + 4 * 256
    assert max(tensor.numel() for tensor in kept) < 256 * 256
    leakage.sum().backward()


@pytest.mark.parametrize("name", ["torch", CPU])
def test_makes_no_gradients_that_nobody_wants(name: str) -> None:
    query, key, mask = tensors(1, 2, 20, 8, torch.float32)
    assert not attention_leakage(query, key, mask, backend=name).requires_grad
    with torch.no_grad():
        assert not attention_leakage(query.requires_grad_(), key, mask, backend=name).requires_grad


@pytest.mark.parametrize("name", ["torch", CPU])
def test_second_derivatives_are_refused_not_wrong(name: str) -> None:
    query, key, mask = tensors(1, 2, 20, 8, torch.float32)
    (grad,) = torch.autograd.grad(
        attention_leakage(query.requires_grad_(), key, mask, backend=name).sum(), query, create_graph=True
    )
    with pytest.raises(RuntimeError, match="differentiable once only"):
        grad.square().sum().backward()


@pytest.mark.parametrize("name", ["torch", CPU])
def test_a_penalty_on_gradients_beside_other_terms_is_refused(name: str) -> None:
    query, key, mask = tensors(1, 2, 20, 8, torch.float32)
    leakage = attention_leakage(query.requires_grad_(), key, mask, backend=name).sum()
    (grad,) = torch.autograd.grad(leakage, query, create_graph=True)
    with pytest.raises(RuntimeError, match="differentiable once only"):
        (query.square().sum() + grad.square().sum()).backward()


def test_the_mask_is_a_constant(backend: str) -> None:
    query, key, mask = tensors(1, 2, 20, 8, torch.float32)
    soft = mask.float().requires_grad_()
    attention_leakage(query.requires_grad_(), key, soft, regions="both", backend=backend).sum().backward()
    assert soft.grad is None
    attention = attention_leakage(query, key, mask, regions="both", backend=backend).sum()
    torch.testing.assert_close(torch.autograd.grad(attention, query)[0], query.grad)


@pytest.mark.parametrize("gradients_wanted", [True, False])
@pytest.mark.parametrize("name", ["torch", CPU])
def test_opcheck(name: str, gradients_wanted: bool) -> None:
    query, key, mask = tensors(2, 2, 9, 4, torch.float32)
    if gradients_wanted:
        query, key = query.requires_grad_(), key.requires_grad_()
    torch.library.opcheck(
        torch.ops.lesionforge.attention_leakage, (query, key, mask, True, 0.5, name, gradients_wanted)
    )


@pytest.mark.parametrize("regions", ["mask", "both"])
def test_compiles_as_one_graph(regions: str) -> None:
    query, key, mask = tensors(2, 2, 20, 8, torch.float32)
    leaves = (query.requires_grad_(), key.requires_grad_())

    def loss(q: Tensor, k: Tensor) -> Tensor:
        return attention_leakage(q, k, mask, regions=regions).sum()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
    made = torch.autograd.grad(compiled(*leaves), leaves)
    torch.testing.assert_close(made, torch.autograd.grad(loss(*leaves), leaves))


@pytest.mark.parametrize(
    ("change", "error", "words"),
    [
        ({"mask": torch.zeros(1, 9)}, ValueError, "mask must be"),
        ({"mask": torch.full((1, 8), 0.5)}, ValueError, "0 and 1"),
        ({"regions": "outside"}, ValueError, "regions"),
        ({"reduction": "max"}, ValueError, "reduction"),
        ({"query": torch.zeros(1, 2, 8, 4, dtype=torch.int64)}, TypeError, "floating dtype"),
        ({"backend": "fast"}, BackendUnavailable, "no backend"),
    ],
)
def test_errors(change: dict, error: type[Exception], words: str) -> None:
    given = {"query": torch.zeros(1, 2, 8, 4), "key": torch.zeros(1, 2, 8, 4), "mask": torch.zeros(1, 8)}
    with pytest.raises(error, match=words):
        attention_leakage(**{**given, **change})
