// What the vector kernels are made of: packed operands, scores and exponentials of a block of rows.
#pragma once
#include <cstring>
#include <limits>

#include "attention_memory.inl"

namespace lesionforge {
namespace {

constexpr int kLanes = LESIONFORGE_LANES;
constexpr int kScoreRows = LESIONFORGE_SCORE_ROWS;
constexpr int kGradientRows = LESIONFORGE_GRADIENT_ROWS;
constexpr int kGradientKeys = LESIONFORGE_GRADIENT_KEYS;
constexpr int64_t kPanel = 2 * kLanes;  // keys side by side in a packed panel
constexpr int64_t kRows = 24;           // query rows whose scores stay in the cache; a multiple of both row tiles

typedef float Vec __attribute__((vector_size(4 * LESIONFORGE_LANES)));
typedef float Loose __attribute__((vector_size(4 * LESIONFORGE_LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LESIONFORGE_LANES)));

LESIONFORGE_INLINE Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
LESIONFORGE_INLINE void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }
LESIONFORGE_INLINE const float* floats(const void* p) { return static_cast<const float*>(p); }
LESIONFORGE_INLINE Vec all(float x) { return Vec{} + x; }

LESIONFORGE_INLINE float total(Vec v) {
    float sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += v[i];
    return sum;
}

// 2^x for x <= 0, relative error 2e-7; a NaN stays one, which is why the scale is multiplied and not added to the bits.
LESIONFORGE_INLINE Vec exp2_of(Vec x) {
    const Vec low = all(-126.0f), magic = all(12582912.0f);
    x = x < low ? low : x;
    const Vec shifted = x + magic;
    const Vec f = x - (shifted - magic);
    Vec p = all(0.00015461444854736328f);
    p = p * f + 0.0013400427997112274f;
    p = p * f + 0.009618056938052177f;
    p = p * f + 0.05550327152013779f;
    p = p * f + 0.24022650718688965f;
    p = p * f + 0.6931471824645996f;
    p = p * f + 1.0f;
    const Ints power = (Ints)shifted - (Ints)magic + 127;
    return p * (Vec)(power << 23);
}

// Scratch memory of zeros.
class Zeros : public Scratch {
public:
    explicit Zeros(int64_t floats) : Scratch(floats * 4) {
        std::memset(as<float>(), 0, static_cast<std::size_t>(floats) * 4);
    }
    float* get() const { return as<float>(); }
};

struct Shape {
    Shape(int64_t tokens, int64_t depth)
        : tokens(tokens), depth(depth), keys(round_up(tokens, kPanel)), width(round_up(depth, kLanes)) {}
    int64_t tokens, depth;
    int64_t keys;   // tokens padded to whole panels
    int64_t width;  // depth padded to whole vectors
    int64_t packed() const { return keys * depth; }
};

// Keys (tokens, depth) times `factor`, as panels [keys / kPanel][depth][kPanel].
void pack_panels(const float* key, const Shape& shape, float factor, float* panels) {
    for (int64_t first = 0; first < shape.keys; first += kPanel, panels += kPanel * shape.depth)
        for (int64_t j = 0; j < kPanel; ++j)
            for (int64_t k = 0; k < shape.depth; ++k)
                panels[k * kPanel + j] = first + j < shape.tokens ? key[(first + j) * shape.depth + k] * factor : 0.0f;
}

// Rows of depth numbers, padded with zeros to `width`.
void pack_rows(const float* from, int64_t rows, const Shape& shape, float* to) {
    for (int64_t i = 0; i < rows; ++i, from += shape.depth, to += shape.width) {
        std::memcpy(to, from, static_cast<std::size_t>(shape.depth) * 4);
        std::memset(to + shape.depth, 0, static_cast<std::size_t>(shape.width - shape.depth) * 4);
    }
}

// scores (kScoreRows, kPanel) = query rows times one panel.
LESIONFORGE_INLINE void score_tile(const float* query, int64_t width, const float* panel, int64_t depth, float* scores,
                                   int64_t keys) {
    Vec left[kScoreRows] = {}, right[kScoreRows] = {};
    for (int64_t k = 0; k < depth; ++k, panel += kPanel) {
        const Vec a = load(panel), b = load(panel + kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < kScoreRows; ++i) {
            const Vec q = all(query[i * width + k]);
            left[i] += q * a;
            right[i] += q * b;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kScoreRows; ++i) {
        store(scores + i * keys, left[i]);
        store(scores + i * keys + kLanes, right[i]);
    }
}

// scores (rows up to a whole tile, keys); keys that are only padding get -inf.
void score_rows(const float* query, int64_t rows, const float* panels, const Shape& shape, float* scores) {
    for (int64_t first = 0; first < shape.keys; first += kPanel)
        for (int64_t i = 0; i < rows; i += kScoreRows)
            score_tile(query + i * shape.width, shape.width, panels + first * shape.depth, shape.depth,
                       scores + i * shape.keys + first, shape.keys);
    for (int64_t i = 0; i < round_up(rows, kScoreRows); ++i)
        for (int64_t q = shape.tokens; q < shape.keys; ++q)
            scores[i * shape.keys + q] = -std::numeric_limits<float>::infinity();
}

LESIONFORGE_INLINE float row_maximum(const float* row, int64_t keys) {
    Vec top = load(row);
    for (int64_t q = kLanes; q < keys; q += kLanes) {
        const Vec s = load(row + q);
        top = top > s ? top : s;
    }
    float maximum = top[0];
    for (int i = 1; i < kLanes; ++i) maximum = maximum > top[i] ? maximum : top[i];
    return maximum;
}

// row <- 2^(row - max); returns its sum.
LESIONFORGE_INLINE float exponentiate(float* row, int64_t keys) {
    const Vec maximum = all(row_maximum(row, keys));
    Vec sum{};
    for (int64_t q = 0; q < keys; q += kLanes) {
        const Vec p = exp2_of(load(row + q) - maximum);
        store(row + q, p);
        sum += p;
    }
    return total(sum);
}

LESIONFORGE_INLINE float dot(const float* a, const float* b, int64_t padded) {
    Vec sum{};
    for (int64_t q = 0; q < padded; q += kLanes) sum += load(a + q) * load(b + q);
    return total(sum);
}

// mean (+)= row * factor, the first `tokens` of it.
LESIONFORGE_INLINE void accumulate(float* mean, const float* row, float factor, int64_t tokens, bool first) {
    int64_t q = 0;
    for (; q + kLanes <= tokens; q += kLanes) {
        const Vec p = load(row + q) * factor;
        store(mean + q, first ? p : load(mean + q) + p);
    }
    for (; q < tokens; ++q) mean[q] = first ? row[q] * factor : mean[q] + row[q] * factor;
}

}  // namespace
}  // namespace lesionforge
