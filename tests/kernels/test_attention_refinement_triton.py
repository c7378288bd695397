"""Runs on a GPU, or under TRITON_INTERPRET=1 as test_triton.py runs it."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lesionforge.kernels import BackendUnavailable, attention_refinement, triton_runtime
from lesionforge.kernels.map_refinement import _triton

if (reason := triton_runtime.why_not()) is not None:
    pytest.skip(reason, allow_module_level=True)

STRATEGIES = ["matrix_free", "mean_map"]
SHAPES = [
    (2, 2, 67, 40, 1),
    (1, 2, 35, 64, 4),
    (2, 1, 33, 24, 4),
    (1, 1, 20, 130, 2),
    (3, 1, 1, 5, 1),
    (1, 2, 20, 4, 70),
]


def tensors(shape: tuple[int, ...], device: str, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor, Tensor]:
    batch, layers, tokens, depth, columns = shape
    rng = torch.Generator().manual_seed(tokens)
    query, key = torch.rand((2, batch, layers, tokens, depth), generator=rng).mul(4).sub(2).to(device, dtype)
    return query, key, torch.rand((batch, tokens, columns), generator=rng).to(device)


def exactly(query: Tensor, key: Tensor, values: Tensor, **settings) -> Tensor:
    return attention_refinement(query.double(), key.double(), values.double(), **settings, backend="reference")


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("strategy", STRATEGIES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_follows_the_reference(triton_device: str, triton_dtype: torch.dtype, shape, strategy: str) -> None:
    # Straight to the backend, which takes narrow inputs as they are: products of them are exact in float32.
    given = tensors(shape, triton_device, triton_dtype)
    made = _triton.refine(*given, 2, 0.3, strategy)
    assert made.dtype == torch.float32
    torch.testing.assert_close(made.double(), exactly(*given, steps=2, scale=0.3), rtol=0, atol=5e-6)


@pytest.mark.parametrize("programs", [1, 3, 256])
def test_layers_shared_out_among_programs(triton_device: str, programs: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_triton, "PROGRAMS", programs)
    query, key, values = tensors((2, 5, 33, 16, 1), triton_device)
    made = _triton.mean_attention(query, key, values, 0.3)
    torch.testing.assert_close(made.double(), exactly(query, key, values, steps=1, scale=0.3), rtol=0, atol=5e-6)


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_by_its_public_name(triton_device: str, triton_dtype: torch.dtype, strategy: str) -> None:
    given = tensors((1, 2, 30, 16, 1), triton_device, triton_dtype)
    made = attention_refinement(*given, steps=2, strategy=strategy, backend="triton")
    torch.testing.assert_close(made.double(), exactly(*given, steps=2), rtol=0, atol=5e-6)
    torch.testing.assert_close(attention_refinement(*given, steps=0, backend="triton"), given[2])


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_reads_tensors_that_are_not_contiguous(triton_device: str, strategy: str) -> None:
    query, key, values = tensors((2, 2, 35, 16, 2), triton_device)
    turned = query.mT.contiguous().mT, key.transpose(1, 2).contiguous().transpose(1, 2), values.mT.contiguous().mT
    made = attention_refinement(*turned, strategy=strategy, backend="triton")
    torch.testing.assert_close(made.double(), exactly(query, key, values), rtol=0, atol=5e-6)


@pytest.mark.parametrize("shape", [(0, 2, 8, 4, 1), (2, 2, 0, 4, 1), (2, 2, 8, 4, 0)], ids=str)
def test_empty(triton_device: str, shape) -> None:
    given = tensors(shape, triton_device)
    assert attention_refinement(*given, backend="triton").shape == given[2].shape


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_a_case_has_the_same_bits_on_every_run_and_in_every_batch(triton_device: str, strategy: str) -> None:
    query, key, values = tensors((3, 4, 35, 16, 1), triton_device)
    made = _triton.refine(query, key, values, 1, 0.3, strategy)
    assert torch.equal(made, _triton.refine(query, key, values, 1, 0.3, strategy))
    assert torch.equal(made[1:2], _triton.refine(query[1:2], key[1:2], values[1:2], 1, 0.3, strategy))


@pytest.mark.parametrize("strategy", STRATEGIES)
def test_large_scores_do_not_overflow_and_nan_shows(triton_device: str, strategy: str) -> None:
    query, key, values = tensors((1, 1, 40, 8, 1), triton_device)
    settings = {"strategy": strategy, "backend": "triton"}
    assert attention_refinement(query * 1e3, key * 1e3, values, **settings).isfinite().all()
    query[0, 0, 3, 0] = torch.nan
    made = attention_refinement(query, key, values, steps=1, **settings)
    assert made[0, :, 0].isnan().nonzero().tolist() == [[3]]


def test_gradients(triton_device: str) -> None:
    given = tensors((2, 2, 40, 16, 2), triton_device)
    grads = []
    for dtype, name in ((torch.float32, "triton"), (torch.float64, "reference")):
        leaves = [tensor.to(dtype).requires_grad_() for tensor in given]
        loss = attention_refinement(*leaves, backend=name).square().sum()
        grads.append([grad.double() for grad in torch.autograd.grad(loss, leaves)])
    torch.testing.assert_close(*grads, rtol=1e-4, atol=5e-6)


def test_heads_may_be_too_wide(triton_device: str) -> None:
    with pytest.raises(BackendUnavailable, match="up to 256 channels, these have 257"):
        attention_refinement(*tensors((1, 1, 4, 257, 1), triton_device), backend="triton")


def test_float64_is_refused(triton_device: str) -> None:
    with pytest.raises(BackendUnavailable, match=r"not torch\.float64"):
        attention_refinement(*tensors((1, 1, 4, 4, 1), triton_device, torch.float64), backend="triton")


def test_opcheck(triton_device: str) -> None:
    given = [tensor.requires_grad_() for tensor in tensors((2, 2, 9, 4, 1), triton_device)]
    torch.library.opcheck(torch.ops.lesionforge.attention_refinement, (*given, 3, 0.5, "auto", "triton"))
