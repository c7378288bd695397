// Philox4x32-10 and the numbers made of its words, for the compilers of CPU and GPU alike: without contraction to fused
// multiply-adds both make the same bits.
#pragma once

#include <bit>
#include <cmath>
#include <cstdint>

#if defined(__CUDACC__)
#define LESIONFORGE_INLINE __host__ __device__ __forceinline__
#elif defined(__GNUC__)
#define LESIONFORGE_INLINE inline __attribute__((always_inline))
#else
#define LESIONFORGE_INLINE inline
#endif

namespace lesionforge {

// A counter, or the block of random words that it gives.
struct Words {
    std::uint32_t w0, w1, w2, w3;
};

// Philox4x32 with ten rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
LESIONFORGE_INLINE Words philox(Words c, std::uint32_t key0, std::uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const std::uint64_t p0 = std::uint64_t{0xD2511F53u} * c.w0;
        const std::uint64_t p1 = std::uint64_t{0xCD9E8D57u} * c.w2;
        c = {static_cast<std::uint32_t>(p1 >> 32) ^ c.w1 ^ key0, static_cast<std::uint32_t>(p1),
             static_cast<std::uint32_t>(p0 >> 32) ^ c.w3 ^ key1, static_cast<std::uint32_t>(p0)};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// -2 ln((word + 1) / 2^32), relative error below 1e-10: ln m = 2 artanh((m - 1) / (m + 1)), m in [sqrt(1/2), sqrt(2)).
LESIONFORGE_INLINE double minus_two_log(std::uint32_t word) {
    const double v = std::bit_cast<double>(0x4330000000000000u | std::uint64_t{word}) - 0x1p52 + 1.0;
    const std::uint64_t bits = std::bit_cast<std::uint64_t>(v) + (0x3FF0000000000000u - 0x3FE6A09E667F3BCDu);
    const double exponent = std::bit_cast<double>(0x4330000000000000u | (bits >> 52)) - (0x1p52 + 1023.0);
    const double m = std::bit_cast<double>((bits & 0x000FFFFFFFFFFFFFu) + 0x3FE6A09E667F3BCDu);
    const double s = (m - 1.0) / (m + 1.0);
    const double t = s * s;
    double series = 1.0 / 15;
    series = series * t + 1.0 / 13;
    series = series * t + 1.0 / 11;
    series = series * t + 1.0 / 9;
    series = series * t + 1.0 / 7;
    series = series * t + 1.0 / 5;
    series = series * t + 1.0 / 3;
    series = series * t + 1.0;
    constexpr double kLn2 = 0.693147180559945309417;
    return -2.0 * ((exponent - 32.0) * kLn2 + 2.0 * s * series);
}

// Cosine and sine of 2 pi word / 2^32: the nearest quarter turn exactly in integers, Taylor series for the rest.
LESIONFORGE_INLINE void cos_sin_turn(std::uint32_t word, double& cosine, double& sine) {
    const std::uint32_t quarter = (word + 0x20000000u) >> 30;
    const double x = static_cast<std::int32_t>(word - (quarter << 30)) * (1.57079632679489661923 / 0x1p30);
    const double t = x * x;
    double s = -1.0 / 39916800;
    s = s * t + 1.0 / 362880;
    s = s * t - 1.0 / 5040;
    s = s * t + 1.0 / 120;
    s = s * t - 1.0 / 6;
    s = (s * t + 1.0) * x;
    double c = 1.0 / 479001600;
    c = c * t - 1.0 / 3628800;
    c = c * t + 1.0 / 40320;
    c = c * t - 1.0 / 720;
    c = c * t + 1.0 / 24;
    c = c * t - 1.0 / 2;
    c = c * t + 1.0;
    const double swapped_cosine = (quarter & 1u) ? s : c;
    const double swapped_sine = (quarter & 1u) ? c : s;
    cosine = ((quarter + 1u) & 2u) ? -swapped_cosine : swapped_cosine;
    sine = (quarter & 2u) ? -swapped_sine : swapped_sine;
}

LESIONFORGE_INLINE void box_muller(std::uint32_t radial, std::uint32_t angular, float& first, float& second) {
    const double radius = std::sqrt(minus_two_log(radial));
    double cosine, sine;
    cos_sin_turn(angular, cosine, sine);
    first = static_cast<float>(radius * cosine);
    second = static_cast<float>(radius * sine);
}

LESIONFORGE_INLINE float unit_interval(std::uint32_t word) {
    return static_cast<float>(static_cast<std::int32_t>(word >> 8)) * 0x1p-24f;
}

}  // namespace lesionforge
