// Gradients of leakage times what comes from above, read and written once.
#pragma once
#include <bit>
#include <cstring>
#include <type_traits>

#include "attention.hpp"
#include "attention_memory.inl"

namespace lesionforge {
namespace {

constexpr int64_t kTokensAtOnce = 256;  // of a head, shared among the threads

LESIONFORGE_INLINE float number_of(float x) { return x; }
LESIONFORGE_INLINE float number_of(std::uint16_t bfloat16) {
    return std::bit_cast<float>(static_cast<std::uint32_t>(bfloat16) << 16);
}

// Rounded to nearest, ties to even.
template <typename Number>
LESIONFORGE_INLINE Number rounded(float x) {
    if constexpr (std::is_same_v<Number, float>) return x;
    const auto bits = std::bit_cast<std::uint32_t>(x);
    const std::uint32_t nearest = (bits + 0x7fff + (bits >> 16 & 1)) >> 16;
    return static_cast<Number>(x == x ? nearest : 0x7fc0);
}

template <typename Number>
void scale_tokens(const ScaledGradients& a, int64_t plane, int64_t first, int64_t end) {
    const int64_t at = (plane * a.tokens + first) * a.depth, count = (end - first) * a.depth;
    const auto* of_query = static_cast<const Number*>(a.of_query) + at;
    auto* query = static_cast<Number*>(a.query_gradient) + at;
    const float* by_row = a.by_row + plane / a.heads * a.tokens;
    for (int64_t token = first; token < end; ++token, of_query += a.depth, query += a.depth) {
        const float weight = by_row[token];
        if (weight == 0)
            std::memset(query, 0, static_cast<std::size_t>(a.depth) * sizeof(Number));
        else
            for (int64_t k = 0; k < a.depth; ++k) query[k] = rounded<Number>(weight * number_of(of_query[k]));
    }
    const auto* of_key = static_cast<const Number*>(a.of_key) + at;
    auto* key = static_cast<Number*>(a.key_gradient) + at;
    const float weight = a.by_column[plane / a.heads];
    if (a.columns == 1) {
        for (int64_t i = 0; i < count; ++i) key[i] = rounded<Number>(weight * number_of(of_key[i]));
        return;
    }
    const auto* second = of_key + a.cases * a.heads * a.tokens * a.depth;
    const float other = a.by_column[a.cases + plane / a.heads];
    for (int64_t i = 0; i < count; ++i)
        key[i] = rounded<Number>(weight * number_of(of_key[i]) + other * number_of(second[i]));
}

void scale_gradients(const ScaledGradients& a) {
    const int64_t parts = (a.tokens + kTokensAtOnce - 1) / kTokensAtOnce, all = a.cases * a.heads * parts;
    const int team = static_cast<int>(least(a.threads, all));
    if (all == 0) return;
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < all; ++i) {
        const int64_t first = i % parts * kTokensAtOnce, end = least(a.tokens, first + kTokensAtOnce);
        if (a.bfloat16)
            scale_tokens<std::uint16_t>(a, i / parts, first, end);
        else
            scale_tokens<float>(a, i / parts, first, end);
    }
}

}  // namespace
}  // namespace lesionforge
