"""Triton kernels of attention_refinement; _triton.py lays out and launches.

Query and key are (B, L, N, d), dense. `factor` is the scale times log2(e): the exponentials are powers of two. Float32
is multiplied by three products of TF32 numbers, which keep float32's precision; other products are exact in float32.
"""

from __future__ import annotations

import triton
import triton.language as tl


@triton.jit
def _rows(tensor, row, tokens, WIDTH: tl.constexpr, PADDED: tl.constexpr):
    """Rows (len(row), PADDED) of `tensor` (tokens, WIDTH), zeros outside."""
    lane = tl.arange(0, PADDED)
    inside = (row < tokens)[:, None] & (lane < WIDTH)[None, :]
    return tl.load(tensor + row[:, None] * WIDTH + lane[None, :], mask=inside, other=0.0)


@triton.jit
def _scores(q, k, column, tokens, factor):
    scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * factor
    return tl.where((column < tokens)[None, :], scores, float("-inf"))


@triton.jit
def mean_attention(
    query,
    key,
    values,
    out,
    layers,
    tokens,
    factor,
    DEPTH: tl.constexpr,
    COLUMNS: tl.constexpr,
    PADDED_DEPTH: tl.constexpr,
    PADDED_COLUMNS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out (parts, B, N, R) = sum over every parts-th layer of softmax(Q K^T scale) @ values (B, N, R).

    A program makes a block of rows of a part.
    """
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    case, part = tl.program_id(1).to(tl.int64), tl.program_id(2)
    total = tl.zeros((BLOCK_M, PADDED_COLUMNS), tl.float32)
    for layer in range(part, layers, tl.num_programs(2)):
        start = (case * layers + layer) * tokens * DEPTH
        q = _rows(query + start, row, tokens, DEPTH, PADDED_DEPTH)
        top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
        weight = tl.zeros((BLOCK_M,), tl.float32)
        attended = tl.zeros((BLOCK_M, PADDED_COLUMNS), tl.float32)
        for begin in range(0, tokens, BLOCK_N):
            column = begin + tl.arange(0, BLOCK_N)
            k = _rows(key + start, column, tokens, DEPTH, PADDED_DEPTH)
            scores = _scores(q, k, column, tokens, factor)
            higher = tl.maximum(top, tl.max(scores, 1))
            share = tl.exp2(scores - higher[:, None])
            kept = tl.exp2(top - higher)
            weight = weight * kept + tl.sum(share, 1)
            if COLUMNS == 1:
                # A sum over the row costs less than a product with fifteen columns of padding.
                v = tl.load(values + case * tokens + column, mask=column < tokens, other=0.0)
                attended = attended * kept[:, None] + tl.expand_dims(tl.sum(share * v[None, :], 1), 1)
            else:
                v = _rows(values + case * tokens * COLUMNS, column, tokens, COLUMNS, PADDED_COLUMNS)
                attended = tl.dot(share, v, attended * kept[:, None], input_precision="tf32x3")
            top = higher
        total += attended / weight[:, None]
    lane = tl.arange(0, PADDED_COLUMNS)
    target = ((part * tl.num_programs(1) + case) * tokens + row[:, None]) * COLUMNS + lane[None, :]
    tl.store(out + target, total, mask=(row < tokens)[:, None] & (lane < COLUMNS)[None, :])


@triton.jit
def log_sums(
    query,
    key,
    out,
    tokens,
    factor,
    DEPTH: tl.constexpr,
    PADDED_DEPTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out (L, N) = log2 of the sums of 2^scores, of which a program makes a block of rows of a layer."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    layer = tl.program_id(1).to(tl.int64)
    start = layer * tokens * DEPTH
    q = _rows(query + start, row, tokens, DEPTH, PADDED_DEPTH)
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK_M,), tl.float32)
    for begin in range(0, tokens, BLOCK_N):
        column = begin + tl.arange(0, BLOCK_N)
        k = _rows(key + start, column, tokens, DEPTH, PADDED_DEPTH)
        scores = _scores(q, k, column, tokens, factor)
        higher = tl.maximum(top, tl.max(scores, 1))
        weight = weight * tl.exp2(top - higher) + tl.sum(tl.exp2(scores - higher[:, None]), 1)
        top = higher
    tl.store(out + layer * tokens + row, top + tl.log2(weight), mask=row < tokens)


@triton.jit
def mean_map(
    query,
    key,
    log_sum,
    out,
    layers,
    tokens,
    factor,
    DEPTH: tl.constexpr,
    PADDED_DEPTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """out (N, N) = the mean over layers of 2^(scores - log_sum), of which a program makes a tile."""
    row = tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M)
    column = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    total = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for layer in range(layers):
        start = tl.cast(layer, tl.int64) * tokens * DEPTH
        q = _rows(query + start, row, tokens, DEPTH, PADDED_DEPTH)
        k = _rows(key + start, column, tokens, DEPTH, PADDED_DEPTH)
        sums = tl.load(log_sum + layer * tokens + row, mask=row < tokens, other=0.0)
        total += tl.exp2(_scores(q, k, column, tokens, factor) - sums[:, None])
    target = row[:, None].to(tl.int64) * tokens + column[None, :]
    tl.store(out + target, total / layers, mask=(row < tokens)[:, None] & (column < tokens)[None, :])
