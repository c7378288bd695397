// Inner loops of norm_act_conv2d.cpp: one pixel's channels or one channel's pixels, for each instruction set.
#pragma once

#include <bit>
#include <cstdint>

#include "norm_act_conv2d.hpp"

#if defined(__GNUC__) && defined(__x86_64__)
#define LESIONFORGE_X86 1
#endif

#if defined(__GNUC__)
#define LESIONFORGE_INLINE inline __attribute__((always_inline))
#else
#define LESIONFORGE_INLINE inline
#endif

namespace lesionforge {
namespace {

using std::int64_t;
using std::uint16_t;
using std::uint32_t;

constexpr int64_t kLanes = 64;  // running sums along a row of pixels

struct bfloat16 {
    uint16_t bits;
};

LESIONFORGE_INLINE float load(float x) { return x; }
LESIONFORGE_INLINE float load(bfloat16 x) { return std::bit_cast<float>(uint32_t{x.bits} << 16); }

LESIONFORGE_INLINE void store(float& out, float x) { out = x; }
LESIONFORGE_INLINE void store(bfloat16& out, float x) {
    const auto bits = std::bit_cast<uint32_t>(x);
    const uint32_t nearest = (bits + 0x7FFFu + ((bits >> 16) & 1u)) >> 16;
    const uint32_t quiet = (bits >> 16) | 0x40u;
    out.bits = static_cast<uint16_t>((bits & 0x7FFFFFFFu) > 0x7F800000u ? quiet : nearest);
}

// x / (1 + exp(-x)), relative error below 4e-7. exp by a power of two and Taylor's series within ln(2) / 2 of zero.
LESIONFORGE_INLINE float silu(float x) {
    // Beyond this exp would overflow, where x / (1 + exp(-x)) is below 1e-35; `z < ...` lets a NaN through.
    float z = -x;
    z = z > 87.0f ? 87.0f : z;
    z = z < -87.0f ? -87.0f : z;
    const float shifted = z * 1.44269504f + 12582912.0f;  // 1.5 * 2^23 rounds to a whole number
    const float whole = shifted - 12582912.0f;
    const float r = (z - whole * 0.693145752f) - whole * 1.42860677e-6f;
    float e = 1.0f / 720;
    e = e * r + 1.0f / 120;
    e = e * r + 1.0f / 24;
    e = e * r + 1.0f / 6;
    e = e * r + 0.5f;
    e = e * r + 1.0f;
    e = e * r + 1.0f;
    const uint32_t power = (std::bit_cast<uint32_t>(shifted) << 23) + 0x3F800000u;
    return x / (1.0f + e * std::bit_cast<float>(power));
}

// Sums of (x - pivot) and its square: far from zero, sums of x itself would lose the variance. So would a pivot that
// lies far from all others, hence the median of three numbers.
struct Sums {
    float *pivot, *first, *second;
};

LESIONFORGE_INLINE float median(float a, float b, float c) {
    const float low = a < b ? a : b, high = a < b ? b : a;
    const float below = high < c ? high : c;
    return low < below ? below : low;
}

template <typename T>
LESIONFORGE_INLINE void sum_pixels(const T* x, int64_t rows, int64_t channels, const Sums& sums) {
    float *pivot = sums.pivot, *first = sums.first, *second = sums.second;
    const T *first_row = x + rows / 4 * channels, *second_row = x + rows / 2 * channels,
            *third_row = x + rows * 3 / 4 * channels;
    for (int64_t c = 0; c < channels; ++c) {
        pivot[c] = median(load(first_row[c]), load(second_row[c]), load(third_row[c]));
        first[c] = second[c] = 0.0f;
    }
    for (int64_t row = 0; row < rows; ++row, x += channels) {
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; ++c) {
            const float d = load(x[c]) - pivot[c];
            first[c] += d;
            second[c] += d * d;
        }
    }
}

template <typename T>
LESIONFORGE_INLINE void sum_row(const T* x, int64_t count, const Sums& sums) {
    float first[kLanes] = {}, second[kLanes] = {};
    const float pivot = median(load(x[count / 4]), load(x[count / 2]), load(x[count * 3 / 4]));
    int64_t i = 0;
    for (; i + kLanes <= count; i += kLanes)
        for (int64_t j = 0; j < kLanes; ++j) {
            const float d = load(x[i + j]) - pivot;
            first[j] += d;
            second[j] += d * d;
        }
    for (; i < count; ++i) {
        const float d = load(x[i]) - pivot;
        first[0] += d;
        second[0] += d * d;
    }
    *sums.pivot = pivot;
    *sums.first = *sums.second = 0.0f;
    for (int64_t j = 0; j < kLanes; ++j) {
        *sums.first += first[j];
        *sums.second += second[j];
    }
}

template <typename T>
LESIONFORGE_INLINE void apply_pixels(const T* x, T* out, int64_t rows, int64_t channels, const float* mean,
                                     const float* scale, const float* offset) {
    for (int64_t row = 0; row < rows; ++row, x += channels, out += channels) {
#pragma GCC ivdep
        for (int64_t c = 0; c < channels; ++c) store(out[c], silu((load(x[c]) - mean[c]) * scale[c] + offset[c]));
    }
}

template <typename T>
LESIONFORGE_INLINE void apply_row(const T* x, T* out, int64_t count, float mean, float scale, float offset) {
#pragma GCC ivdep
    for (int64_t i = 0; i < count; ++i) store(out[i], silu((load(x[i]) - mean) * scale + offset));
}

// y += shift + residual for `rows` rows; the shift is one number for each of `count` columns, or one for all.
template <typename T, bool kRowOfShifts>
LESIONFORGE_INLINE void add(T* y, const float* shift, const T* residual, int64_t rows, int64_t count) {
    const float constant = shift && !kRowOfShifts ? *shift : 0.0f;
    for (int64_t row = 0; row < rows; ++row, y += count) {
        if (residual && shift) {
#pragma GCC ivdep
            for (int64_t i = 0; i < count; ++i)
                store(y[i], load(y[i]) + (kRowOfShifts ? shift[i] : constant) + load(residual[i]));
        } else if (residual) {
#pragma GCC ivdep
            for (int64_t i = 0; i < count; ++i) store(y[i], load(y[i]) + load(residual[i]));
        } else if (shift) {
#pragma GCC ivdep
            for (int64_t i = 0; i < count; ++i) store(y[i], load(y[i]) + (kRowOfShifts ? shift[i] : constant));
        }
        if (residual) residual += count;
    }
}

template <typename T>
struct Kernels {
    void (*sum_pixels)(const T*, int64_t, int64_t, const Sums&);
    void (*sum_row)(const T*, int64_t, const Sums&);
    void (*apply_pixels)(const T*, T*, int64_t, int64_t, const float*, const float*, const float*);
    void (*apply_row)(const T*, T*, int64_t, float, float, float);
    void (*add_pixels)(T*, const float*, const T*, int64_t, int64_t);
    void (*add_row)(T*, const float*, const T*, int64_t, int64_t);
};

// The same bodies, compiled once for each instruction set.
#define LESIONFORGE_KERNELS(Set, TARGET)                                                                            \
    template <typename T>                                                                                           \
    struct Set {                                                                                                    \
        TARGET static void sum_p(const T* x, int64_t rows, int64_t channels, const Sums& sums) {                    \
            sum_pixels<T>(x, rows, channels, sums);                                                                 \
        }                                                                                                           \
        TARGET static void sum_r(const T* x, int64_t count, const Sums& sums) { sum_row<T>(x, count, sums); }       \
        TARGET static void apply_p(const T* x, T* out, int64_t rows, int64_t channels, const float* mean,           \
                                   const float* scale, const float* offset) {                                       \
            apply_pixels<T>(x, out, rows, channels, mean, scale, offset);                                           \
        }                                                                                                           \
        TARGET static void apply_r(const T* x, T* out, int64_t count, float mean, float scale, float offset) {      \
            apply_row<T>(x, out, count, mean, scale, offset);                                                       \
        }                                                                                                           \
        TARGET static void add_p(T* y, const float* shift, const T* residual, int64_t rows, int64_t count) {        \
            add<T, true>(y, shift, residual, rows, count);                                                          \
        }                                                                                                           \
        TARGET static void add_r(T* y, const float* shift, const T* residual, int64_t rows, int64_t count) {        \
            add<T, false>(y, shift, residual, rows, count);                                                         \
        }                                                                                                           \
        static constexpr Kernels<T> kernels{sum_p, sum_r, apply_p, apply_r, add_p, add_r};                          \
    }

LESIONFORGE_KERNELS(Generic, );
#ifdef LESIONFORGE_X86
#ifdef __clang__
#define LESIONFORGE_AVX512 __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma")))
#else
#define LESIONFORGE_AVX512 \
    __attribute__((target("avx512f,avx512bw,avx512vl,avx512dq,fma,prefer-vector-width=512")))
#endif
LESIONFORGE_KERNELS(Avx2, __attribute__((target("avx2,fma"))));
LESIONFORGE_KERNELS(Avx512, LESIONFORGE_AVX512);
#endif

template <typename T>
const Kernels<T>& kernels_of([[maybe_unused]] InstructionSet set) {
#ifdef LESIONFORGE_X86
    if (set == InstructionSet::avx512) return Avx512<T>::kernels;
    if (set == InstructionSet::avx2) return Avx2<T>::kernels;
#endif
    return Generic<T>::kernels;
}

}  // namespace
}  // namespace lesionforge
