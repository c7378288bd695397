// What the kernels on levels share: how blocks split a map, how values become levels, and the counting of levels.
#pragma once

#include <algorithm>

#include "levels.cuh"

namespace lesionforge::cuda {

constexpr int kPixelsPerThread = 16;
constexpr int kMaxBlocksOfCase = 1024;

// Each case is shared by several blocks; a thread takes every (threads of the case)-th pixel.
struct Share {
    std::int64_t pixels;
    std::int64_t blocks;  // of a case

    explicit Share(std::int64_t of)
        : pixels(of), blocks(std::clamp<std::int64_t>(of / (kThreads * kPixelsPerThread), 1, kMaxBlocksOfCase)) {}
    __device__ std::int64_t image() const { return blockIdx.x / blocks; }
    __device__ std::int64_t first() const { return blockIdx.x % blocks * kThreads + threadIdx.x; }
    __device__ std::int64_t step() const { return blocks * kThreads; }
};

// a < b exactly where key_of(a) < key_of(b), and NaN lie beyond the infinities on either side.
__device__ inline std::uint32_t key_of(float x) {
    const std::uint32_t bits = __float_as_uint(x);
    return bits >> 31 ? ~bits : bits | 0x80000000u;
}

__device__ inline float value_of(std::uint32_t key) { return __uint_as_float(key >> 31 ? key & 0x7FFFFFFFu : ~key); }

// Maps the range of a map to [0, top]; a constant map and one that is not finite to 0.
struct Stretch {
    float low, span, top;
    bool finite;

    __device__ Stretch(const Range& range, int to) : top(static_cast<float>(to)) {
        low = value_of(~range.inverted_low);
        span = value_of(range.high) - low;
        finite = isfinite(span);
    }
    __device__ float operator()(float x) const { return finite && span > 0 ? (x - low) / span * top : 0.0f; }
};

__device__ inline std::uint8_t rounded(float level) {
    return static_cast<std::uint8_t>(static_cast<int>(level + 0.5f));
}

// A histogram for each warp of a block, so that equal neighbours seldom wait for each other. The whole block calls.
template <typename LevelAt>
__device__ void add_histogram(const Share& share, std::uint32_t* histograms, LevelAt level_at) {
    __shared__ std::uint32_t counts[kWarps][kLevels];
    for (int warp = 0; warp < kWarps; ++warp) counts[warp][threadIdx.x] = 0;
    __syncthreads();
    for (std::int64_t pixel = share.first(); pixel < share.pixels; pixel += share.step())
        atomicAdd(&counts[threadIdx.x / kWarp][level_at(pixel)], 1u);
    __syncthreads();
    std::uint32_t sum = 0;
    for (int warp = 0; warp < kWarps; ++warp) sum += counts[warp][threadIdx.x];
    if (sum != 0) atomicAdd(&histograms[share.image() * kLevels + threadIdx.x], sum);
}

static_assert(kThreads == kLevels, "a thread of a block answers for one level");

}  // namespace lesionforge::cuda
