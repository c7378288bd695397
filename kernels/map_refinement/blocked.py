"""The best algorithms of plain torch: no map of every head, and either one mean map or no map at all."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor
from torch.nn import functional

Product = Callable[[Tensor], Tensor]

# Scores that a block of rows has over all layers: small enough for a CPU's cache, large enough for a GPU's queue.
BLOCK = {"cpu": 1 << 21, "cuda": 1 << 26}


def refine(query: Tensor, key: Tensor, values: Tensor, steps: int, scale: float, strategy: str) -> Tensor:
    """(B, N, R) by `strategy` "mean_map" or "matrix_free"."""
    if strategy == "matrix_free":
        for _ in range(steps):
            values = mean_attention(query, key, values, scale)
        return values
    out = torch.empty_like(values)
    for case in range(len(query)):
        attention, refined = mean_map(query[case], key[case], scale), values[case]
        for _ in range(steps):
            refined = attention @ refined
        out[case] = refined
    return out


def why_not(*tensors: Tensor) -> str | None:
    return None


def mean_attention(query: Tensor, key: Tensor, values: Tensor, scale: float) -> Tensor:
    """(B, N, R) = mean over layers of softmax(Q K^T scale) @ values (B, N, R), by fused attention.

    The values are padded to the head width d, since torch's flash attention on CPU asks for equal widths; more than d
    columns take several passes.
    """
    parts = []
    for columns in values.split(query.shape[-1], dim=-1):
        width = columns.shape[-1]
        padded = functional.pad(columns, (0, query.shape[-1] - width))[:, None].expand(-1, query.shape[1], -1, -1)
        attended = functional.scaled_dot_product_attention(query, key, padded, scale=scale)
        parts.append(attended[..., :width].mean(1))
    return torch.cat(parts, dim=-1)


def mean_map(query: Tensor, key: Tensor, scale: float) -> Tensor:
    """(N, N) mean map of one case, query and key (L, N, d), written block by block of rows."""
    layers, tokens, _ = query.shape
    out = query.new_empty(tokens, tokens)
    for rows in row_blocks(layers, tokens, query.device):
        torch.mean(torch.softmax(query[:, rows] * scale @ key.mT, dim=-1), dim=0, out=out[rows])
    return out


def row_blocks(layers: int, tokens: int, device: torch.device) -> list[slice]:
    """Slices over the rows of an attention map whose scores fit a block."""
    size = max(1, BLOCK.get(device.type, 1 << 24) // (layers * max(tokens, 1)))
    return [slice(first, first + size) for first in range(0, tokens, size)]


def gradients(
    query: Tensor, key: Tensor, values: Tensor, grad: Tensor, steps: int, scale: float, strategy: str
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of sum(grad * A^steps values) to query, key and values; the maps are computed again, block by block.

    `strategy` "mean_map" keeps A of one case for the powers, "matrix_free" nothing of size N x N. With U_t = A^t values
    and G_t = (A^T)^t grad, dA = sum_t G_(steps-1-t) U_t^T has rank R steps: attention's own backward with U side by
    side as the values and G as their gradient.
    """
    of_query, of_key, of_values = torch.zeros_like(query), torch.zeros_like(key), torch.empty_like(values)
    for case in range(len(query)):
        apply, apply_transposed = _products(query[case], key[case], scale, strategy)
        forward, back = [values[case]], [grad[case]]
        for _ in range(steps - 1):
            forward.append(apply(forward[-1]))
            back.append(apply_transposed(back[-1]))
        of_values[case] = apply_transposed(back[-1]) if steps else grad[case]
        if steps:
            u, g = torch.cat(forward, -1), torch.cat(back[::-1], -1) / query.shape[1]
            _map_gradients(query[case], key[case], u, g, scale, of_query[case], of_key[case])
    return of_query, of_key, of_values


def _products(query: Tensor, key: Tensor, scale: float, strategy: str) -> tuple[Product, Product]:
    """x -> A x and x -> A^T x for the mean map A of one case."""
    if strategy == "mean_map":
        attention = mean_map(query, key, scale)
        return (lambda x: attention @ x), (lambda x: attention.mT @ x)

    def apply_transposed(x: Tensor) -> Tensor:
        out = torch.zeros_like(x)
        for rows in row_blocks(query.shape[0], query.shape[1], query.device):
            out += torch.softmax(query[:, rows] * scale @ key.mT, dim=-1).mean(0).mT @ x[rows]
        return out

    return (lambda x: mean_attention(query[None], key[None], x[None], scale)[0]), apply_transposed


def _map_gradients(
    query: Tensor, key: Tensor, u: Tensor, g: Tensor, scale: float, of_query: Tensor, of_key: Tensor
) -> None:
    for rows in row_blocks(query.shape[0], query.shape[1], query.device):
        maps = torch.softmax(query[:, rows] * scale @ key.mT, dim=-1)
        of_maps = g[rows] @ u.mT
        of_scores = maps * (of_maps - (maps * of_maps).sum(-1, keepdim=True)) * scale
        of_query[:, rows] = of_scores @ key
        of_key += of_scores.mT @ query[:, rows]
