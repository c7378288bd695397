from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lesionforge.kernels import token_attention


def tensors(dtype: torch.dtype, batch: int = 2, depth: int = 8) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = (batch, 3, 17, depth), (batch, 3, 11, depth)
    query, key = (torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype) for shape in shapes)
    return query, key


def literally(query: Tensor, key: Tensor, tokens: Tensor, scale: float) -> Tensor:
    maps = torch.softmax(query.double() @ key.double().mT * scale, -1).mean(1)
    return torch.stack([maps[case][:, tokens[case]] for case in range(len(maps))])


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 2e-2), (torch.float16, 2e-3)]
)
@pytest.mark.parametrize("tokens", [[4], [0, 10, 0], list(range(11)), []])
def test_is_the_mean_probability(dtype: torch.dtype, atol: float, tokens: list[int]) -> None:
    query, key = tensors(dtype)
    made = token_attention(query, key, tokens, scale=0.4)
    assert made.dtype == dtype
    places = torch.tensor([tokens, tokens], dtype=torch.int64)
    torch.testing.assert_close(made.double(), literally(query, key, places, 0.4), rtol=0, atol=atol)


def test_tokens_of_each_case() -> None:
    query, key = tensors(torch.float64)
    tokens = torch.tensor([[1, 2], [9, 0]])
    torch.testing.assert_close(token_attention(query, key, tokens), literally(query, key, tokens, 8**-0.5))


def test_all_tokens_sum_to_one() -> None:
    query, key = tensors(torch.float64, depth=4)
    torch.testing.assert_close(token_attention(query, key, range(11)).sum(-1), torch.ones(2, 17, dtype=torch.float64))


def test_no_cases() -> None:
    query, key = tensors(torch.float32, batch=0)
    assert token_attention(query, key, [1, 2]).shape == (0, 17, 2)


def test_gradcheck() -> None:
    query, key = (tensor.requires_grad_() for tensor in tensors(torch.float64, depth=3))
    assert torch.autograd.gradcheck(lambda q, k: token_attention(q, k, [2, 5]), (query, key))


def test_compiles_as_one_graph() -> None:
    query, key = tensors(torch.float32)
    tokens = torch.tensor([3, 7])
    compiled = torch.compile(token_attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(query, key, tokens), token_attention(query, key, tokens))


@pytest.mark.parametrize(
    ("tokens", "error"),
    [([11], ValueError), ([-1], ValueError), (torch.zeros(2), TypeError), (torch.zeros(3, 1).long(), ValueError)],
)
def test_errors(tokens: list[int] | Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match="tokens"):
        token_attention(*tensors(torch.float32), tokens)
