#include "seeded_noise.hpp"

#include <algorithm>

#include "multiarch.hpp"
#include "philox.hpp"

namespace lesionforge {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

constexpr int kLanes = 64;  // blocks that one tile computes side by side
constexpr int kWords = 4;   // words of a block, and numbers made of it
constexpr int64_t kTile = int64_t{kLanes} * kWords;
constexpr int64_t kTilesPerThread = 64;  // less work than this does not pay for another thread

// One array per place in a block, so that the loops over lanes vectorise.
struct Tile {
    alignas(64) float z[kWords][kLanes];
};

LESIONFORGE_INLINE void interleave(const Tile& tile, float* out, int64_t count) {
    if (count == kTile) {
        for (int i = 0; i < kLanes; ++i)
            for (int j = 0; j < kWords; ++j) out[i * kWords + j] = tile.z[j][i];
    } else {
        for (int64_t e = 0; e < count; ++e) out[e] = tile.z[e % kWords][e / kWords];
    }
}

// Numbers of the blocks from `block` on; `count` of them, at most kTile, are written.
LESIONFORGE_MULTIARCH
void normal_tile(uint64_t seed, uint32_t block, uint32_t step, uint32_t stream, float* out, int64_t count) {
    const auto key0 = static_cast<uint32_t>(seed), key1 = static_cast<uint32_t>(seed >> 32);
    Tile tile;
    for (int i = 0; i < kLanes; ++i) {
        const Words c = philox({block + static_cast<uint32_t>(i), step, stream, 0}, key0, key1);
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
        const Words c = philox({block + static_cast<uint32_t>(i), step, stream, 0}, key0, key1);
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
        const Words c = philox({word(0), word(1), word(2), word(3)}, static_cast<uint32_t>(key[i * 2]),
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
