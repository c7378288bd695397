// What the AMX kernels are made of: numbers as sums of bfloat16 parts, operands packed in tiles, products of tiles.
//
// A tile holds 16 rows of 64 bytes. A "left" operand is 32 vectors as they are, a "right" one is transposed by pairs of
// numbers, as TDPBF16PS wants it. Both lie as [step of 32 channels][part][half][16][32] bfloat16.
#pragma once
#include <immintrin.h>

#include "attention_memory.inl"

namespace lesionforge {
namespace {

using std::uint16_t;

constexpr int64_t kGroup = 32;     // vectors of an operand
constexpr int64_t kTile = 16 * 32;  // bfloat16 numbers of a tile
constexpr int64_t kScores = kGroup * kGroup;

struct alignas(64) TileConfiguration {
    std::uint8_t palette = 1, start_row = 0, reserved[14] = {};
    uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
    std::uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
};
constexpr TileConfiguration kTileConfiguration;

// The tiles of this thread, as long as this lives.
class Tiles {
public:
    Tiles() { _tile_loadconfig(&kTileConfiguration); }
    ~Tiles() { _tile_release(); }
    Tiles(const Tiles&) = delete;
    Tiles& operator=(const Tiles&) = delete;
};

LESIONFORGE_INLINE void fill(float* to, int64_t count, float value) {
    for (int64_t i = 0; i < count; ++i) to[i] = value;
}

// Tile loads do not tell the compiler that they read memory.
LESIONFORGE_INLINE void written() { asm volatile("" ::: "memory"); }

LESIONFORGE_INLINE __m512 widened(__m256i bfloat16) {
    return _mm512_castsi512_ps(_mm512_slli_epi32(_mm512_cvtepu16_epi32(bfloat16), 16));
}

// 2^(y - 1/2), relative error 1.7e-7; any y, NaN included.
LESIONFORGE_INLINE __m512 exp2_less_half(__m512 y) {
    const __m512 f = _mm512_reduce_ps(y, 0x09);  // y - floor(y)
    __m512 p = _mm512_set1_ps(0.0013276472454890609f);
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.00635642372071743f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.03947516903281212f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.16981424391269684f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.49013322591781616f));
    p = _mm512_fmadd_ps(p, f, _mm512_set1_ps(0.7071067094802856f));
    return _mm512_scalef_ps(p, y);
}

LESIONFORGE_INLINE void transpose(__m512i* r) {
    __m512i t[16];
    for (int i = 0; i < 16; i += 2) {
        t[i] = _mm512_unpacklo_epi32(r[i], r[i + 1]);
        t[i + 1] = _mm512_unpackhi_epi32(r[i], r[i + 1]);
    }
    for (int i = 0; i < 16; i += 4)
        for (int j = 0; j < 2; ++j) {
            r[i + 2 * j] = _mm512_unpacklo_epi64(t[i + j], t[i + j + 2]);
            r[i + 2 * j + 1] = _mm512_unpackhi_epi64(t[i + j], t[i + j + 2]);
        }
    for (int c = 0; c < 4; ++c) {
        const __m512i a = _mm512_shuffle_i32x4(r[c], r[4 + c], 0x88), b = _mm512_shuffle_i32x4(r[c], r[4 + c], 0xdd);
        const __m512i d = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0x88);
        const __m512i e = _mm512_shuffle_i32x4(r[8 + c], r[12 + c], 0xdd);
        t[c] = _mm512_shuffle_i32x4(a, d, 0x88);
        t[8 + c] = _mm512_shuffle_i32x4(a, d, 0xdd);
        t[4 + c] = _mm512_shuffle_i32x4(b, e, 0x88);
        t[12 + c] = _mm512_shuffle_i32x4(b, e, 0xdd);
    }
    for (int i = 0; i < 16; ++i) r[i] = t[i];
}

// Vectors of a plane (tokens, depth): token `first + i`, or `tokens[i]` if there is a list.
struct Vectors {
    const void* plane;
    bool bfloat16;
    int64_t depth, first, count;
    const int64_t* tokens;
};

LESIONFORGE_INLINE __mmask16 lanes(int64_t left) {
    return static_cast<__mmask16>(left >= 16 ? 0xffff : left <= 0 ? 0 : (1 << left) - 1);
}

// 16 channels of vector i; 0 past the depth and past the count.
LESIONFORGE_INLINE __m512 load_channels(const Vectors& v, int64_t i, int64_t channel) {
    const __mmask16 mask = i < v.count ? lanes(v.depth - channel) : static_cast<__mmask16>(0);
    if (mask == 0) return _mm512_setzero_ps();
    const int64_t at = (v.tokens != nullptr ? v.tokens[i] : v.first + i) * v.depth + channel;
    if (v.bfloat16) return widened(_mm256_maskz_loadu_epi16(mask, static_cast<const uint16_t*>(v.plane) + at));
    return _mm512_maskz_loadu_ps(mask, static_cast<const float*>(v.plane) + at);
}

// Parts of the 32 numbers low, high: their bfloat16 roundings, those of what is left, and so on.
template <int kParts>
LESIONFORGE_INLINE void split(__m512 low, __m512 high, __m512i* parts) {
    for (int i = 0; i < kParts; ++i) {
        parts[i] = reinterpret_cast<__m512i>(_mm512_cvtne2ps_pbh(high, low));
        if (i + 1 == kParts) return;
        low = _mm512_sub_ps(low, widened(_mm512_castsi512_si256(parts[i])));
        high = _mm512_sub_ps(high, widened(_mm512_extracti64x4_epi64(parts[i], 1)));
    }
}

// The same of the numbers (low[0], high[0], low[1], ...), by way of half a unit added.
template <int kParts>
LESIONFORGE_INLINE void interleave(__m512 low, __m512 high, __m512i* parts) {
    const __m512i half = _mm512_set1_epi32(0x8000), top = _mm512_set1_epi32(static_cast<int>(0xffff0000));
    for (int i = 0; i < kParts; ++i) {
        const __m512i a = _mm512_add_epi32(_mm512_castps_si512(low), half);
        const __m512i b = _mm512_add_epi32(_mm512_castps_si512(high), half);
        parts[i] = _mm512_mask_blend_epi16(0xaaaaaaaa, _mm512_srli_epi32(a, 16), b);
        if (i + 1 == kParts) return;
        low = _mm512_sub_ps(low, _mm512_castsi512_ps(_mm512_and_si512(a, top)));
        high = _mm512_sub_ps(high, _mm512_castsi512_ps(_mm512_and_si512(b, top)));
    }
}

template <int kParts>
int64_t operand_size(int64_t steps) {
    return steps * kParts * 2 * kTile;
}

template <int kParts>
void pack_left(const Vectors& v, int64_t steps, uint16_t* out) {
    for (int64_t i = 0; i < kGroup; ++i)
        for (int64_t step = 0; step < steps; ++step) {
            __m512i parts[kParts];
            split<kParts>(load_channels(v, i, step * 32), load_channels(v, i, step * 32 + 16), parts);
            for (int64_t part = 0; part < kParts; ++part)
                _mm512_store_si512(out + ((step * kParts + part) * 2 + i / 16) * kTile + i % 16 * 32, parts[part]);
        }
}

template <int kParts>
void pack_right(const Vectors& v, int64_t steps, uint16_t* out) {
    pack_left<kParts>(v, steps, out);
    for (uint16_t* tile = out; tile < out + operand_size<kParts>(steps); tile += kTile) {
        __m512i rows[16];
        for (int i = 0; i < 16; ++i) rows[i] = _mm512_load_si512(tile + i * 32);
        transpose(rows);
        for (int i = 0; i < 16; ++i) _mm512_store_si512(tile + i * 32, rows[i]);
    }
}

// The left operand whose vectors are channels and whose one step are the vectors of `v`, for each 32 channels;
// `stride` from one to the next.
template <int kParts>
void pack_channels(const Vectors& v, int64_t steps, int64_t stride, uint16_t* out) {
    for (int64_t channel = 0; channel < steps * 32; channel += 16) {
        __m512i low[16], high[16], parts[kParts];
        for (int i = 0; i < 16; ++i) {
            low[i] = _mm512_castps_si512(load_channels(v, i, channel));
            high[i] = _mm512_castps_si512(load_channels(v, 16 + i, channel));
        }
        transpose(low);
        transpose(high);
        uint16_t* const to = out + channel / 32 * stride + channel / 16 % 2 * kTile;
        for (int i = 0; i < 16; ++i) {
            split<kParts>(_mm512_castsi512_ps(low[i]), _mm512_castsi512_ps(high[i]), parts);
            for (int part = 0; part < kParts; ++part) _mm512_store_si512(to + part * 2 * kTile + i * 32, parts[part]);
        }
    }
}

// Tiles 0 to 3 += one step of left times right; products smaller than the last part that is kept are left out.
template <int kParts>
LESIONFORGE_INLINE void multiply_step(const uint16_t* left, const uint16_t* right) {
    for (int i = 0; i < kParts; ++i) {
        _tile_loadd(4, left + i * 2 * kTile, 64);
        _tile_loadd(5, left + i * 2 * kTile + kTile, 64);
        for (int j = kParts - 1 - i; j >= 0; --j) {
            _tile_loadd(6, right + j * 2 * kTile, 64);
            _tile_loadd(7, right + j * 2 * kTile + kTile, 64);
            _tile_dpbf16ps(0, 4, 6);
            _tile_dpbf16ps(1, 4, 7);
            _tile_dpbf16ps(2, 5, 6);
            _tile_dpbf16ps(3, 5, 7);
        }
    }
}

LESIONFORGE_INLINE void clear_sums() {
    _tile_zero(0);
    _tile_zero(1);
    _tile_zero(2);
    _tile_zero(3);
}

LESIONFORGE_INLINE void load_sums(const float* from, int64_t stride) {
    _tile_loadd(0, from, stride * 4);
    _tile_loadd(1, from + 16, stride * 4);
    _tile_loadd(2, from + 16 * stride, stride * 4);
    _tile_loadd(3, from + 16 * stride + 16, stride * 4);
}

LESIONFORGE_INLINE void store_sums(float* to, int64_t stride) {
    _tile_stored(0, to, stride * 4);
    _tile_stored(1, to + 16, stride * 4);
    _tile_stored(2, to + 16 * stride, stride * 4);
    _tile_stored(3, to + 16 * stride + 16, stride * 4);
}

// scores (32, 32) = left times right.
template <int kParts>
LESIONFORGE_INLINE void multiply(const uint16_t* left, const uint16_t* right, int64_t steps, float* scores) {
    clear_sums();
    for (int64_t step = 0; step < steps; ++step)
        multiply_step<kParts>(left + operand_size<kParts>(step), right + operand_size<kParts>(step));
    store_sums(scores, kGroup);
}

// 2^(score factor + offset - 1/2): rows are keys, lanes 16 queries.
LESIONFORGE_INLINE __m512 exponential(const float* scores, __m512 factor, const float* offset) {
    return exp2_less_half(_mm512_fmadd_ps(_mm512_load_ps(scores), factor, _mm512_load_ps(offset)));
}

// Queries whose scores with keys [first, end) of a head are wanted; keys from `end` on are padding.
struct Queries {
    const uint16_t* packed;  // `blocks` right operands
    int64_t blocks, steps;
    float factor;         // on the scores, for powers of two
    const float* offset;  // [block][32], see exponential
};

// sums[block][0] += sum over the keys of their exponentials, sums[block][1 + c] of these times values[c].
template <int kParts, int kColumns>
void sum_exponentials(const uint16_t* keys, int64_t first, int64_t end, const Queries& q, const float* values,
                      int64_t stride, float* sums) {
    alignas(64) float scores[kScores];
    const int64_t size = operand_size<kParts>(q.steps);
    const __m512 factor = _mm512_set1_ps(q.factor);
    for (int64_t key = first; key < end; key += kGroup)
        for (int64_t block = 0; block < q.blocks; ++block) {
            multiply<kParts>(keys + key / kGroup * size, q.packed + block * size, q.steps, scores);
            __m512 sum[1 + kColumns][2] = {};
            for (int64_t k = 0; k < least(kGroup, end - key); ++k)
                for (int half = 0; half < 2; ++half) {
                    const __m512 p =
                        exponential(scores + k * kGroup + half * 16, factor, q.offset + block * kGroup + half * 16);
                    sum[0][half] = _mm512_add_ps(sum[0][half], p);
                    for (int c = 0; c < kColumns; ++c)
                        sum[1 + c][half] =
                            _mm512_fmadd_ps(p, _mm512_set1_ps(values[c * stride + key + k]), sum[1 + c][half]);
                }
            for (int c = 0; c <= kColumns; ++c)
                for (int half = 0; half < 2; ++half) {
                    float* const s = sums + (block * (1 + kColumns) + c) * kGroup + half * 16;
                    _mm512_store_ps(s, _mm512_add_ps(_mm512_load_ps(s), sum[c][half]));
                }
        }
}

// maxima[block] = max(what is there, the keys' scores times factor).
template <int kParts>
void raise_maxima(const uint16_t* keys, int64_t first, int64_t end, const Queries& q, float* maxima) {
    alignas(64) float scores[kScores];
    const int64_t size = operand_size<kParts>(q.steps);
    const __m512 factor = _mm512_set1_ps(q.factor);
    for (int64_t key = first; key < end; key += kGroup)
        for (int64_t block = 0; block < q.blocks; ++block) {
            multiply<kParts>(keys + key / kGroup * size, q.packed + block * size, q.steps, scores);
            float* const to = maxima + block * kGroup;
            __m512 low = _mm512_load_ps(to), high = _mm512_load_ps(to + 16);
            for (int64_t k = 0; k < least(kGroup, end - key); ++k) {
                low = _mm512_max_ps(low, _mm512_mul_ps(_mm512_load_ps(scores + k * kGroup), factor));
                high = _mm512_max_ps(high, _mm512_mul_ps(_mm512_load_ps(scores + k * kGroup + 16), factor));
            }
            _mm512_store_ps(to, low);
            _mm512_store_ps(to + 16, high);
        }
}

float largest_square(const void* plane, bool bfloat16, int64_t tokens, int64_t depth) {
    const Vectors v{plane, bfloat16, depth, 0, tokens, nullptr};
    float largest = 0;
    for (int64_t i = 0; i < tokens; ++i) {
        __m512 sum = _mm512_setzero_ps();
        for (int64_t channel = 0; channel < depth; channel += 16) {
            const __m512 x = load_channels(v, i, channel);
            sum = _mm512_fmadd_ps(x, x, sum);
        }
        const float square = _mm512_reduce_add_ps(sum);
        if (square > largest || square != square) largest = square;  // a NaN stays
    }
    return largest;
}

}  // namespace
}  // namespace lesionforge
