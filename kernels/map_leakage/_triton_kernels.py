"""Triton kernels of attention_leakage; _triton.py lays out and launches.

Query and key are (B, L, N, d), dense. `order` (B, N) names the tokens, those inside the mask first, and `inside` (B,)
counts these: region 0 has the rows before that count and leaks to the keys behind it, region 1 the other way round.
`factor` is the scale times log2(e): the exponentials are powers of two. Float32 is multiplied by three products of TF32
numbers, which keep float32's precision.
"""

from __future__ import annotations

import triton
import triton.language as tl

# Powers of two that probabilities are carried above their value, so that in float16 the small ones do not vanish.
HEADROOM: tl.constexpr = tl.constexpr(15)


@triton.jit
def _gather(tensor, token, real, DEPTH: tl.constexpr, PADDED_DEPTH: tl.constexpr):
    """Rows `token` of `tensor` (N, DEPTH), zeros where not `real`, padded to (len(token), PADDED_DEPTH)."""
    lane = tl.arange(0, PADDED_DEPTH)
    mask = real[:, None] & (lane < DEPTH)[None, :]
    return tl.load(tensor + token[:, None] * DEPTH + lane[None, :], mask=mask, other=0.0)


@triton.jit
def _attend(
    q,
    key,
    order,
    first,
    last,
    factor,
    DEPTH: tl.constexpr,
    PADDED_DEPTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    GRADIENTS: tl.constexpr,
):
    """(highest score, sum of w, sum of w k) over the keys order[first:last], first < last.

    w = 2^(score - highest + HEADROOM)
    """
    top = tl.full((BLOCK_M,), float("-inf"), tl.float32)
    weight = tl.zeros((BLOCK_M,), tl.float32)
    attended = tl.zeros((BLOCK_M, PADDED_DEPTH), tl.float32)
    for begin in range(first, last, BLOCK_N):
        place = begin + tl.arange(0, BLOCK_N)
        real = place < last
        k = _gather(key, tl.load(order + place, mask=real, other=0), real, DEPTH, PADDED_DEPTH)
        scores = tl.dot(q, tl.trans(k), input_precision="tf32x3") * factor
        scores = tl.where(real[None, :], scores, float("-inf"))
        higher = tl.maximum(top, tl.max(scores, 1))
        share = tl.exp2(scores - higher[:, None] + HEADROOM)
        kept = tl.exp2(top - higher)
        weight = weight * kept + tl.sum(share, 1)
        if GRADIENTS:
            attended = tl.dot(share.to(k.dtype), k, attended * kept[:, None], input_precision="tf32x3")
        top = higher
    return top, weight, attended


@triton.jit
def leaked_rows(
    query,
    key,
    order,
    inside,
    leaked,
    log_sum,
    query_gradient,
    layers,
    tokens,
    factor,
    gradient_factor,
    DEPTH: tl.constexpr,
    PADDED_DEPTH: tl.constexpr,
    TWO_SIDED: tl.constexpr,
    GRADIENTS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """A block of rows of one region.

    leaked (B, L, N): the share of a row's attention on the keys that its region leaks to. log_sum (B, L, N): log2 of
    the row's sum of 2^scores. query_gradient (B, L, N, d): that of `leaked` times `gradient_factor`.
    """
    block, layer, case = tl.program_id(0), tl.program_id(1), tl.program_id(2).to(tl.int64)
    count = tl.load(inside + case)
    blocks_inside = tl.cdiv(count, BLOCK_M)
    outer = block >= blocks_inside
    first = tl.where(outer, count + (block - blocks_inside) * BLOCK_M, block * BLOCK_M)
    last = tl.where(outer, tokens, count)
    # Nothing leaks where one region has all tokens.
    if (first >= last) | (count == 0) | (count == tokens) | (outer & (not TWO_SIDED)):
        return
    order += case * tokens
    heads = case * layers + layer
    place = first + tl.arange(0, BLOCK_M)
    real = place < last
    row = tl.load(order + place, mask=real, other=0)
    q = _gather(query + heads * tokens * DEPTH, row, real, DEPTH, PADDED_DEPTH)
    key += heads * tokens * DEPTH
    # The keys that the region leaks to, and those that it does not.
    top, weight, attended = _attend(
        q, key, order, tl.where(outer, 0, count), tl.where(outer, count, tokens), factor,
        DEPTH, PADDED_DEPTH, BLOCK_M, BLOCK_N, GRADIENTS,
    )  # fmt: skip
    own_top, own_weight, own_attended = _attend(
        q, key, order, tl.where(outer, count, 0), tl.where(outer, tokens, count), factor,
        DEPTH, PADDED_DEPTH, BLOCK_M, BLOCK_N, GRADIENTS,
    )  # fmt: skip
    highest = tl.maximum(top, own_top)
    grown, own_grown = tl.exp2(top - highest), tl.exp2(own_top - highest)
    weight, own_weight = weight * grown, own_weight * own_grown
    total = weight + own_weight
    share, own_share = weight / total, own_weight / total
    tl.store(leaked + heads * tokens + row, share, mask=real)
    if GRADIENTS:
        tl.store(log_sum + heads * tokens + row, highest + tl.log2(total) - HEADROOM, mask=real)
        # sum_q A[p, q] (v[q] - u[p]) k[q] with v = 1 on the first keys and 0 on the others.
        towards = attended * (grown * own_share / total)[:, None]
        away = own_attended * (own_grown * share / total)[:, None]
        lane = tl.arange(0, PADDED_DEPTH)
        tl.store(
            query_gradient + (heads * tokens + row[:, None]) * DEPTH + lane[None, :],
            ((towards - away) * gradient_factor).to(query_gradient.dtype.element_ty),
            mask=real[:, None] & (lane < DEPTH)[None, :],
        )


@triton.jit
def key_gradients(
    query,
    key,
    order,
    inside,
    mask,
    leaked,
    log_sum,
    key_gradient,
    cases,
    layers,
    tokens,
    factor,
    gradient_factor,
    DEPTH: tl.constexpr,
    PADDED_DEPTH: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """key_gradient (C, B, L, N, d): a program has a block of keys and goes over the rows of one region."""
    layer, region = tl.program_id(1), tl.program_id(2) // cases
    case = (tl.program_id(2) % cases).to(tl.int64)
    count = tl.load(inside + case)
    if (count == 0) | (count == tokens):
        return
    column = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    real_column = column < tokens
    heads = case * layers + layer
    query += heads * tokens * DEPTH
    k = _gather(key + heads * tokens * DEPTH, column, real_column, DEPTH, PADDED_DEPTH)
    leaks = (tl.load(mask + case * tokens + column, mask=real_column, other=0) == region).to(tl.float32)
    gradient = tl.zeros((BLOCK_N, PADDED_DEPTH), tl.float32)
    last = tl.where(region == 0, count, tokens)
    for begin in range(tl.where(region == 0, 0, count), last, BLOCK_M):
        place = begin + tl.arange(0, BLOCK_M)
        real = place < last
        row = tl.load(order + case * tokens + place, mask=real, other=0)
        q = _gather(query, row, real, DEPTH, PADDED_DEPTH)
        sums = tl.load(log_sum + heads * tokens + row, mask=real, other=float("inf"))
        share = tl.load(leaked + heads * tokens + row, mask=real, other=0.0)
        scores = tl.dot(k, tl.trans(q), input_precision="tf32x3") * factor
        of_scores = tl.exp2(scores - sums[None, :] + HEADROOM) * (leaks[:, None] - share[None, :])
        gradient = tl.dot(of_scores.to(q.dtype), q, gradient, input_precision="tf32x3")
    lane = tl.arange(0, PADDED_DEPTH)
    start = (region * cases + case) * layers + layer
    tl.store(
        key_gradient + (start * tokens + column[:, None]) * DEPTH + lane[None, :],
        (gradient * tl.exp2(-1.0 * HEADROOM) * gradient_factor).to(key_gradient.dtype.element_ty),
        mask=real_column[:, None] & (lane < DEPTH)[None, :],
    )
