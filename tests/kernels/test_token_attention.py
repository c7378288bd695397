from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lesionforge.kernels import token_attention, token_maps
from lesionforge.kernels.token_maps import reference, sdpa

SCALE = 0.4


@pytest.fixture(params=[reference, sdpa], ids=["maps", "sdpa"])
def way(request: pytest.FixtureRequest):
    return request.param.token_attention


def tensors(dtype: torch.dtype, batch: int = 2, depth: int = 8) -> tuple[Tensor, Tensor]:
    rng = torch.Generator().manual_seed(0)
    shapes = (batch, 3, 17, depth), (batch, 3, 11, depth)
    query, key = (torch.randn(shape, generator=rng, dtype=torch.float64).to(dtype) for shape in shapes)
    return query, key


def literally(query: Tensor, key: Tensor, tokens: Tensor, scale: float) -> Tensor:
    maps = torch.softmax(query.double() @ key.double().mT * scale, -1).mean(1)
    return torch.stack([maps[case][:, tokens[case]] for case in range(len(maps))])


@pytest.mark.parametrize(
    ("dtype", "atol"), [(torch.float64, 1e-14), (torch.float32, 1e-6), (torch.bfloat16, 4e-3), (torch.float16, 5e-4)]
)
@pytest.mark.parametrize("tokens", [[4], [0, 10, 0], list(range(11)), []])
def test_is_the_mean_probability(way, dtype: torch.dtype, atol: float, tokens: list[int]) -> None:
    query, key = tensors(dtype)
    places = torch.tensor([tokens, tokens], dtype=torch.int64)
    made = way(query, key, places, SCALE)
    assert made.dtype == dtype
    torch.testing.assert_close(made.double(), literally(query, key, places, SCALE), rtol=0, atol=atol)
    torch.testing.assert_close(token_attention(query, key, tokens, scale=SCALE), made, rtol=0, atol=2 * atol)


@pytest.mark.parametrize(("dtype", "atol"), [(torch.float64, 1e-14), (torch.bfloat16, 1e-2)])
def test_gradients(way, dtype: torch.dtype, atol: float) -> None:
    places = torch.tensor([[1, 2, 1], [9, 0, 3]])
    query, key = leaves = [tensor.requires_grad_() for tensor in tensors(dtype)]
    weights = torch.rand(2, 17, 3, generator=torch.Generator().manual_seed(1), dtype=torch.float64)
    expected, made = (
        torch.autograd.grad((work(query, key, places, SCALE).double() * weights).sum(), leaves)
        for work in (literally, way)
    )
    torch.testing.assert_close(made, expected, rtol=0, atol=atol)


def test_bfloat16_is_rounded_once_and_autocast_changes_nothing() -> None:
    query, key = tensors(torch.bfloat16)
    places = torch.tensor([[4, 7], [4, 7]])
    expected = literally(query, key, places, SCALE)
    made = token_attention(query, key, places, scale=SCALE)
    torch.testing.assert_close(made.double(), expected, rtol=2**-8, atol=0)
    for dtype in (torch.float32, torch.bfloat16):
        inputs = [tensor.to(dtype) for tensor in (query, key)]
        with torch.autocast("cpu", dtype=torch.bfloat16):
            under = token_attention(*inputs, places)
        assert torch.equal(under, token_attention(*inputs, places))


@pytest.mark.parametrize(("limit", "value"), [("FEW_KEYS", 10), ("MOST_SCORES", 2 * 3 * 17 * 11 - 1)])
def test_many_keys_or_scores_are_not_written_out(monkeypatch: pytest.MonkeyPatch, limit: str, value: int) -> None:
    query, key = tensors(torch.float32)
    assert token_maps.maps_pay(query, key)
    assert not token_maps.maps_pay(query.to("meta"), key.to("meta"))
    monkeypatch.setattr(token_maps, limit, value)
    monkeypatch.setattr(reference, "token_attention", None)
    made = token_attention(query, key, [4], scale=SCALE)
    torch.testing.assert_close(made.double(), literally(query, key, torch.tensor([[4], [4]]), SCALE), rtol=0, atol=1e-6)


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


def test_gradcheck(way) -> None:
    query, key = (tensor.requires_grad_() for tensor in tensors(torch.float64, depth=3))
    places = torch.tensor([[2, 5], [5, 0]])
    assert torch.autograd.gradcheck(lambda q, k: way(q, k, places, SCALE), (query, key))


@pytest.mark.parametrize("few_keys", [token_maps.FEW_KEYS, 0])
@pytest.mark.parametrize("tokens", [torch.tensor([3, 7]), torch.tensor([[3, 7], [0, 3]])])
def test_compiles_as_one_graph(monkeypatch: pytest.MonkeyPatch, tokens: Tensor, few_keys: int) -> None:
    monkeypatch.setattr(token_maps, "FEW_KEYS", few_keys)
    query, key = tensors(torch.float32)
    compiled = torch.compile(token_attention, backend="aot_eager", fullgraph=True)
    torch.testing.assert_close(compiled(query, key, tokens), token_attention(query, key, tokens))


@pytest.mark.parametrize(
    ("tokens", "error"),
    [
        ([11], ValueError),
        ([-1], ValueError),
        ([1, 1.7], TypeError),
        ([True], TypeError),
        (torch.zeros(2), TypeError),
        (torch.zeros(3, 1).long(), ValueError),
    ],
)
def test_errors(tokens: list[int] | Tensor, error: type[Exception]) -> None:
    with pytest.raises(error, match="tokens"):
        token_attention(*tensors(torch.float32), tokens)
