#include <limits>

#include "histogram.cuh"

namespace lesionforge::cuda {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint8_t;

__global__ void __launch_bounds__(kThreads) range_kernel(const float* maps, Range* ranges, Share share) {
    const float* map = maps + share.image() * share.pixels;
    uint32_t inverted_low = 0, high = 0;
    for (int64_t pixel = share.first(); pixel < share.pixels; pixel += share.step()) {
        const uint32_t key = key_of(map[pixel]);
        inverted_low = max(inverted_low, ~key);
        high = max(high, key);
    }
    inverted_low = __reduce_max_sync(kAllLanes, inverted_low);
    high = __reduce_max_sync(kAllLanes, high);
    if (threadIdx.x % kWarp != 0) return;
    atomicMax(&ranges[share.image()].inverted_low, inverted_low);
    atomicMax(&ranges[share.image()].high, high);
}

__global__ void __launch_bounds__(kThreads) count_bytes(const uint8_t* maps, uint32_t* histograms, Share share) {
    const uint8_t* map = maps + share.image() * share.pixels;
    add_histogram(share, histograms, [&](int64_t pixel) { return map[pixel]; });
}

__global__ void __launch_bounds__(kThreads)
    count_floats(const float* maps, const Range* ranges, int top, uint32_t* histograms, Share share) {
    const float* map = maps + share.image() * share.pixels;
    const Stretch stretch(ranges[share.image()], top);
    add_histogram(share, histograms, [&](int64_t pixel) { return rounded(stretch(map[pixel])); });
}

// A block per case, a thread per level: prefix sums, then the smallest level of the greatest variance between classes.
__global__ void __launch_bounds__(kThreads) threshold_kernel(const uint32_t* histograms, int* thresholds) {
    __shared__ int64_t counts[kLevels], sums[kLevels];
    __shared__ unsigned long long greatest;
    __shared__ int threshold;
    const int level = threadIdx.x;
    const int64_t here = histograms[int64_t{blockIdx.x} * kLevels + level];
    counts[level] = here;
    sums[level] = here * level;
    if (level == 0) {
        greatest = 0;
        threshold = kLevels;
    }
    for (int step = 1; step < kLevels; step *= 2) {
        __syncthreads();
        const int64_t count = level >= step ? counts[level - step] : 0, sum = level >= step ? sums[level - step] : 0;
        __syncthreads();
        counts[level] += count;
        sums[level] += sum;
    }
    __syncthreads();
    const int64_t pixels = counts[kLevels - 1], below = counts[level];
    unsigned long long key = 0;  // grows with the variance, which is not negative; 0: a class is empty
    if (below > 0 && below < pixels) {
        const auto difference = static_cast<double>(pixels * sums[level] - below * sums[kLevels - 1]);
        const double weights = static_cast<double>(below) * static_cast<double>(pixels - below);
        key = static_cast<unsigned long long>(__double_as_longlong(difference * difference / weights)) + 1;
        atomicMax(&greatest, key);
    }
    __syncthreads();
    // Of a constant map no level has two classes; its level is the one that occurs.
    if (greatest == 0 ? here > 0 : key == greatest) atomicMin(&threshold, level);
    __syncthreads();
    if (level == 0) thresholds[blockIdx.x] = threshold;
}

__global__ void __launch_bounds__(kThreads) highest_kernel(const float* maps, const Range* ranges, int top,
                                                           const int* thresholds, uint32_t* highest, Share share) {
    const float* map = maps + share.image() * share.pixels;
    const Stretch stretch(ranges[share.image()], top);
    const int threshold = thresholds[share.image()];
    uint32_t key = 0;
    for (int64_t pixel = share.first(); pixel < share.pixels; pixel += share.step())
        if (rounded(stretch(map[pixel])) <= threshold) key = max(key, key_of(map[pixel]));
    key = __reduce_max_sync(kAllLanes, key);
    if (threadIdx.x % kWarp == 0) atomicMax(&highest[share.image()], key);
}

__global__ void __launch_bounds__(kThreads)
    highest_values(const uint32_t* highest, const Range* ranges, int64_t cases, float* out) {
    const int64_t i = thread_number();
    if (i >= cases) return;
    const Stretch stretch(ranges[i], 1);
    out[i] = stretch.finite ? value_of(highest[i]) : std::numeric_limits<float>::quiet_NaN();
}

__global__ void __launch_bounds__(kThreads) bytes_of(const int* thresholds, int64_t cases, uint8_t* out) {
    const int64_t i = thread_number();
    if (i < cases) out[i] = static_cast<uint8_t>(thresholds[i]);
}

}  // namespace

void find_ranges(Stream& stream, const Maps& maps, Range* ranges) {
    const Share share(maps.pixels());
    stream.launch(maps.cases * share.blocks, range_kernel, static_cast<const float*>(maps.values), ranges, share);
}

void count_levels(Stream& stream, const Maps& maps, const Range* ranges, int top, uint32_t* histograms) {
    const Share share(maps.pixels());
    const int64_t blocks = maps.cases * share.blocks;
    if (maps.bytes) {
        stream.launch(blocks, count_bytes, static_cast<const uint8_t*>(maps.values), histograms, share);
    } else {
        stream.launch(blocks, count_floats, static_cast<const float*>(maps.values), ranges, top, histograms, share);
    }
}

void find_thresholds(Stream& stream, const uint32_t* histograms, int64_t cases, int* thresholds) {
    stream.launch(cases, threshold_kernel, histograms, thresholds);
}

void find_highest(Stream& stream, const Maps& maps, const Range* ranges, int top, const int* thresholds,
                  uint32_t* highest, float* out) {
    const Share share(maps.pixels());
    const auto* values = static_cast<const float*>(maps.values);
    stream.launch(maps.cases * share.blocks, highest_kernel, values, ranges, top, thresholds, highest, share);
    stream.launch(blocks_for(maps.cases), highest_values, highest, ranges, maps.cases, out);
}

void to_bytes(Stream& stream, const int* thresholds, int64_t cases, uint8_t* out) {
    stream.launch(blocks_for(cases), bytes_of, thresholds, cases, out);
}

}  // namespace lesionforge::cuda
