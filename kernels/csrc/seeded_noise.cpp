#include "seeded_noise.hpp"

#include <algorithm>
#include <bit>
#include <cmath>

#include "multiarch.hpp"

#if defined(__GNUC__)
#define LESIONFORGE_INLINE inline __attribute__((always_inline))
#else
#define LESIONFORGE_INLINE inline
#endif

namespace lesionforge {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

constexpr int kLanes = 64;  // blocks that one tile computes side by side
constexpr int kWords = 4;   // words of a block, and numbers made of it
constexpr int64_t kTile = int64_t{kLanes} * kWords;
constexpr int64_t kTilesPerThread = 64;  // less work than this does not pay for another thread

struct Block {
    uint32_t w0, w1, w2, w3;
};

// One array per place in a block, so that the loops over lanes vectorise.
struct Tile {
    alignas(64) float z[kWords][kLanes];
};

// Philox4x32 with ten rounds (Salmon et al. 2011, "Parallel random numbers: as easy as 1, 2, 3").
LESIONFORGE_INLINE Block philox(Block c, uint32_t key0, uint32_t key1) {
    for (int round = 0; round < 10; ++round) {
        const uint64_t p0 = uint64_t{0xD2511F53u} * c.w0;
        const uint64_t p1 = uint64_t{0xCD9E8D57u} * c.w2;
        c = {static_cast<uint32_t>(p1 >> 32) ^ c.w1 ^ key0, static_cast<uint32_t>(p1),
             static_cast<uint32_t>(p0 >> 32) ^ c.w3 ^ key1, static_cast<uint32_t>(p0)};
        key0 += 0x9E3779B9u;
        key1 += 0xBB67AE85u;
    }
    return c;
}

// -2 ln((word + 1) / 2^32), relative error below 1e-10: ln m = 2 artanh((m - 1) / (m + 1)), m in [sqrt(1/2), sqrt(2)).
LESIONFORGE_INLINE double minus_two_log(uint32_t word) {
    const double v = std::bit_cast<double>(0x4330000000000000u | uint64_t{word}) - 0x1p52 + 1.0;
    const uint64_t bits = std::bit_cast<uint64_t>(v) + (0x3FF0000000000000u - 0x3FE6A09E667F3BCDu);
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
LESIONFORGE_INLINE void cos_sin_turn(uint32_t word, double& cosine, double& sine) {
    const uint32_t quarter = (word + 0x20000000u) >> 30;
    const double x = static_cast<int32_t>(word - (quarter << 30)) * (1.57079632679489661923 / 0x1p30);
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

LESIONFORGE_INLINE void interleave(const Tile& tile, float* out, int64_t count) {
    if (count == kTile) {
        for (int i = 0; i < kLanes; ++i)
            for (int j = 0; j < kWords; ++j) out[i * kWords + j] = tile.z[j][i];
    } else {
        for (int64_t e = 0; e < count; ++e) out[e] = tile.z[e % kWords][e / kWords];
    }
}

LESIONFORGE_INLINE void box_muller(uint32_t radial, uint32_t angular, float& first, float& second) {
    const double radius = std::sqrt(minus_two_log(radial));
    double cosine, sine;
    cos_sin_turn(angular, cosine, sine);
    first = static_cast<float>(radius * cosine);
    second = static_cast<float>(radius * sine);
}

LESIONFORGE_INLINE float unit_interval(uint32_t word) {
    return static_cast<float>(static_cast<int32_t>(word >> 8)) * 0x1p-24f;
}

// Numbers of the blocks from `block` on; `count` of them, at most kTile, are written.
LESIONFORGE_MULTIARCH
void normal_tile(uint64_t seed, uint32_t block, uint32_t step, uint32_t stream, float* out, int64_t count) {
    const auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    Tile tile;
    for (int i = 0; i < kLanes; ++i) {
        const Block c = philox({block + static_cast<uint32_t>(i), step, stream, 0}, key0, key1);
        box_muller(c.w0, c.w1, tile.z[0][i], tile.z[1][i]);
        box_muller(c.w2, c.w3, tile.z[2][i], tile.z[3][i]);
    }
    interleave(tile, out, count);
}

LESIONFORGE_MULTIARCH
void uniform_tile(uint64_t seed, uint32_t block, uint32_t step, uint32_t stream, float* out, int64_t count) {
    const auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    Tile tile;
    for (int i = 0; i < kLanes; ++i) {
        const Block c = philox({block + static_cast<uint32_t>(i), step, stream, 0}, key0, key1);
        tile.z[0][i] = unit_interval(c.w0);
        tile.z[1][i] = unit_interval(c.w1);
        tile.z[2][i] = unit_interval(c.w2);
        tile.z[3][i] = unit_interval(c.w3);
    }
    interleave(tile, out, count);
}

using TileFunction = void (*)(uint64_t, uint32_t, uint32_t, uint32_t, float*, int64_t);

void fill(TileFunction tile, const uint64_t* seeds, float* out, int64_t cases, int64_t count, uint32_t step,
          uint32_t stream, int threads) {
    const int64_t tiles = (count + kTile - 1) / kTile;
    [[maybe_unused]] const int team = static_cast<int>(std::clamp<int64_t>(cases * tiles / kTilesPerThread, 1, threads));
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t job = 0; job < cases * tiles; ++job) {
        const int64_t row = job / tiles, first = job % tiles * kTile;
        tile(seeds[row], static_cast<uint32_t>(first / kWords), step, stream, out + row * count + first,
             std::min(kTile, count - first));
    }
}

}  // namespace

void philox_u32(const int64_t* key, const int64_t* counter, int64_t* out, int64_t n, int threads) {
    [[maybe_unused]] const int team = static_cast<int>(std::clamp<int64_t>(n / (kLanes * kTilesPerThread), 1, threads));
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < n; ++i) {
        const auto word = [&](int j) { return static_cast<uint32_t>(counter[i * kWords + j]); };
        const Block c = philox({word(0), word(1), word(2), word(3)}, static_cast<uint32_t>(key[i * 2]),
                               static_cast<uint32_t>(key[i * 2 + 1]));
        out[i * kWords] = c.w0;
        out[i * kWords + 1] = c.w1;
        out[i * kWords + 2] = c.w2;
        out[i * kWords + 3] = c.w3;
    }
}

void seeded_normal(const uint64_t* seeds, float* out, int64_t cases, int64_t count, uint32_t step, uint32_t stream,
                   int threads) {
    fill(normal_tile, seeds, out, cases, count, step, stream, threads);
}

void seeded_uniform(const uint64_t* seeds, float* out, int64_t cases, int64_t count, uint32_t step, uint32_t stream,
                    int threads) {
    fill(uniform_tile, seeds, out, cases, count, step, stream, threads);
}

}  // namespace lesionforge
