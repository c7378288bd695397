"""Runs on a GPU, or under TRITON_INTERPRET=1 as test_triton.py runs it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lesionforge.kernels import BackendUnavailable, attention_leakage, triton_runtime
from lesionforge.kernels.map_leakage import _triton, blocked

if (reason := triton_runtime.why_not()) is not None:
    pytest.skip(reason, allow_module_level=True)

SHAPES = [(2, 2, 67, 40), (1, 2, 66, 64), (2, 1, 33, 24), (1, 1, 20, 130), (3, 1, 2, 5)]
# Of the largest gradient; narrow inputs multiply probabilities in their own precision.
ROUNDING = {torch.float32: 5e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
sides = pytest.mark.parametrize("two_sided", [False, True], ids=["one-sided", "two-sided"])


def tensors(shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    batch, layers, tokens, depth = shape
    rng = torch.Generator().manual_seed(tokens)
    query, key = torch.rand((2, batch, layers, tokens, depth), generator=rng).mul(4).sub(2).to(device, dtype)
    mask = torch.rand((batch, tokens), generator=rng) > 0.6
    mask[:, 0], mask[:, 1:2] = True, False
    return query, key, mask.to(device)


def sums_and_gradients(run, query: Tensor, key: Tensor, mask: Tensor, two_sided: bool) -> tuple[Tensor, Tensor, Tensor]:
    of_query, of_key = torch.zeros_like(query), torch.stack([torch.zeros_like(key)] * (1 + two_sided))
    sums = run(query, key, mask, two_sided, 0.3, of_query, of_key)
    return sums.double(), of_query.double(), of_key.double()


@pytest.mark.usefixtures("poisoned")
@sides
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_follows_plain_torch_in_float64(triton_device: str, triton_dtype: torch.dtype, shape, two_sided: bool) -> None:
    # Straight to the backend, which takes narrow inputs as they are.
    query, key, mask = tensors(shape, triton_device, triton_dtype)
    made = sums_and_gradients(_triton.row_sums, query, key, mask, two_sided)
    true = sums_and_gradients(blocked.row_sums, query.double(), key.double(), mask, two_sided)
    torch.testing.assert_close(made[0], true[0], rtol=1e-5, atol=0)
    for gradient, exact in zip(made[1:], true[1:], strict=True):
        error = ROUNDING[triton_dtype] * float(exact.abs().max())
        torch.testing.assert_close(gradient, exact, rtol=ROUNDING[triton_dtype], atol=error)
    assert torch.equal(_triton.row_sums(query, key, mask, two_sided, 0.3).double(), made[0])


@pytest.mark.parametrize("regions", ["mask", "both"])
@pytest.mark.parametrize("reduction", ["mean", "sum"])
def test_by_its_public_name(triton_device: str, regions: str, reduction: str) -> None:
    query, key, mask = tensors((2, 2, 45, 16), triton_device)
    turned = query.mT.contiguous().mT, key.transpose(1, 2).contiguous().transpose(1, 2)
    found = []
    for dtype, name in ((torch.float32, "triton"), (torch.float64, "reference")):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in turned]
        value = attention_leakage(*leaves, mask.float(), regions=regions, reduction=reduction, backend=name)
        weight = torch.linspace(1, 2, value.numel(), dtype=dtype, device=triton_device).view(value.shape) * 45
        gradients = torch.autograd.grad((value * weight).sum(), leaves)
        found.append([value.detach().double(), *(gradient.double() for gradient in gradients)])
    torch.testing.assert_close(*found, rtol=1e-5, atol=5e-6)


@pytest.mark.parametrize("regions", ["mask", "both"])
def test_empty_and_full_masks_leak_nothing(triton_device: str, regions: str) -> None:
    query, key, mask = tensors((3, 2, 40, 8), triton_device)
    mask[0], mask[2] = False, True
    leaves = (query.requires_grad_(), key.requires_grad_())
    leakage = attention_leakage(*leaves, mask, regions=regions, backend="triton")
    assert not leakage[[0, 2]].any()
    assert leakage[1].all()
    for gradient in torch.autograd.grad(leakage.sum(), leaves):
        assert not gradient[[0, 2]].any()
        assert gradient[1].any()


@sides
@pytest.mark.parametrize("rows", [1, 32, 64, 95])
def test_regions_of_every_size(triton_device: str, rows: int, two_sided: bool) -> None:
    # A block of rows more than the tokens need, regions that fill their blocks, and a region of one row.
    query, key, mask = tensors((1, 1, 96, 8), triton_device)
    mask[:] = torch.arange(96, device=triton_device) < rows
    made = sums_and_gradients(_triton.row_sums, query, key, mask, two_sided)
    true = sums_and_gradients(blocked.row_sums, query.double(), key.double(), mask, two_sided)
    torch.testing.assert_close(made, true, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("shape", [(0, 2, 8, 4), (2, 2, 0, 4)], ids=str)
def test_no_cases_or_no_tokens(triton_device: str, shape) -> None:
    query, key, mask = torch.zeros(shape), torch.zeros(shape), torch.zeros(shape[0], shape[2])
    leaves = query.to(triton_device).requires_grad_(), key.to(triton_device)
    leakage = attention_leakage(*leaves, mask.to(triton_device), regions="both", backend="triton")
    assert leakage.tolist() == [[0.0, 0.0]] * shape[0]
    assert torch.autograd.grad(leakage.sum(), leaves[0])[0].shape == shape


def test_a_case_has_the_same_bits_on_every_run_and_in_every_batch(triton_device: str) -> None:
    query, key, mask = tensors((3, 1, 35, 16), triton_device)
    made = sums_and_gradients(_triton.row_sums, query, key, mask, True)
    again = sums_and_gradients(_triton.row_sums, query, key, mask, True)
    assert all(torch.equal(one, other) for one, other in zip(made, again, strict=True))
    alone = sums_and_gradients(_triton.row_sums, query[1:2], key[1:2], mask[1:2], True)
    assert torch.equal(made[1][1:2], alone[1])
    assert torch.equal(made[2][:, 1:2], alone[2])


def test_small_probabilities_survive_float16(triton_device: str) -> None:
    # Of 3000 keys alike nearly all are leaked to: a probability of 3e-4 times what a row keeps to itself, 1e-2, lies
    # where float16 has two digits left.
    rng = torch.Generator().manual_seed(1)
    query, key = (torch.rand((2, 1, 1, 3000, 16), generator=rng) / 8).to(triton_device, torch.float16)
    mask = (torch.arange(3000, device=triton_device) < 40)[None]
    made = torch.zeros((1, *key.shape), device=triton_device)
    true = made.double()
    _triton.row_sums(query, key, mask, False, 0.3, torch.zeros_like(query), made)
    blocked.row_sums(query.double(), key.double(), mask, False, 0.3, torch.zeros_like(query).double(), true)
    leaked_to = made[..., 40:, :] - true[..., 40:, :]
    assert leaked_to.norm() < 1e-3 * true[..., 40:, :].norm()


def test_heads_may_be_too_wide(triton_device: str) -> None:
    with pytest.raises(BackendUnavailable, match="up to 256 channels, these have 257"):
        attention_leakage(*tensors((1, 1, 4, 257), triton_device), backend="triton")


def test_opcheck(triton_device: str) -> None:
    query, key, mask = tensors((1, 2, 9, 4), triton_device)
    arguments = (query.requires_grad_(), key.requires_grad_(), mask, True, 0.5, "triton", True)
    torch.library.opcheck(torch.ops.lesionforge.attention_leakage, arguments)
