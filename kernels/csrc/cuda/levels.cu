#include "levels.cuh"

#include <algorithm>

#include "histogram.cuh"

namespace lesionforge::cuda {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint8_t;

constexpr int kTapsPerLaunch = 512;

__device__ int mirrored(int place, int length) {
    if (place >= 0 && place < length) return place;
    const int period = length > 1 ? 2 * (length - 1) : 1;
    place = (place % period + period) % period;
    return min(min(place, period - place), length - 1);
}

// Where a sample of a resized axis lies: between `before` and `after`, by `weight` towards the latter.
struct Place {
    int before, after;
    float weight;

    __device__ Place(int i, int length, int size) {
        const double ratio = static_cast<double>(length) / static_cast<double>(size);
        const double place = fmin(fmax((i + 0.5) * ratio - 0.5, 0.0), length - 1.0);
        before = static_cast<int>(place);
        after = min(before + 1, length - 1);
        weight = static_cast<float>(place - before);
    }
};

__device__ float between(float first, float second, float weight) { return first + (second - first) * weight; }

// Pixels of one map resized to size x size, columns first.
class Resized {
public:
    __device__ Resized(const Maps& maps, const Range* ranges, int64_t image, int size)
        : maps_(maps),
          first_(image * maps.height * maps.width),
          size_(size),
          stretch_(maps.bytes ? Range{} : ranges[image], kLevels - 1) {}

    __device__ float at(int y, int x) const {
        const Place down(y, maps_.height, size_), across(x, maps_.width, size_);
        return between(row(down.before, across), row(down.after, across), down.weight);
    }

private:
    __device__ float row(int y, const Place& across) const {
        return between(level(y, across.before), level(y, across.after), across.weight);
    }
    __device__ float level(int y, int x) const {
        const int64_t pixel = first_ + int64_t{y} * maps_.width + x;
        if (maps_.bytes) return static_cast<const uint8_t*>(maps_.values)[pixel];
        return stretch_(static_cast<const float*>(maps_.values)[pixel]);
    }

    const Maps& maps_;
    int64_t first_;
    int size_;
    Stretch stretch_;
};

__global__ void __launch_bounds__(kThreads)
    resize_kernel(Maps maps, const Range* ranges, int size, uint8_t* levels, uint32_t* histograms, Share share) {
    const Resized resized(maps, ranges, share.image(), size);
    uint8_t* out = levels + share.image() * share.pixels;
    add_histogram(share, histograms, [&](int64_t pixel) {
        return out[pixel] = rounded(resized.at(static_cast<int>(pixel / size), static_cast<int>(pixel % size)));
    });
}

// Launch arguments are copied at the launch: no copy from pageable memory that would wait or outlive its source.
struct TapChunk {
    float values[kTapsPerLaunch];
};

__global__ void __launch_bounds__(kThreads) store_taps(TapChunk chunk, float* taps, int count) {
    for (int i = threadIdx.x; i < count; i += kThreads) taps[i] = chunk.values[i];
}

// A block resizes and smooths one row.
__global__ void __launch_bounds__(kThreads)
    smooth_rows(Maps maps, const Range* ranges, int size, const float* taps, int radius, float* rows) {
    __shared__ float line[kMaxSize];
    const int64_t image = blockIdx.x / size;
    const int y = static_cast<int>(blockIdx.x % size);
    const Resized resized(maps, ranges, image, size);
    for (int x = threadIdx.x; x < size; x += kThreads) line[x] = resized.at(y, x);
    __syncthreads();
    for (int x = threadIdx.x; x < size; x += kThreads) {
        float total = 0;
        for (int k = 0; k <= 2 * radius; ++k) total += line[mirrored(x + k - radius, size)] * taps[k];
        rows[int64_t{blockIdx.x} * size + x] = total;
    }
}

__global__ void __launch_bounds__(kThreads) smooth_columns(const float* rows, int size, const float* taps, int radius,
                                                           uint8_t* levels, uint32_t* histograms, Share share) {
    const float* from = rows + share.image() * share.pixels;
    uint8_t* out = levels + share.image() * share.pixels;
    add_histogram(share, histograms, [&](int64_t pixel) {
        const int y = static_cast<int>(pixel / size), x = static_cast<int>(pixel % size);
        float total = 0;
        for (int k = 0; k <= 2 * radius; ++k)
            total += from[int64_t{mirrored(y + k - radius, size)} * size + x] * taps[k];
        return out[pixel] = rounded(total);
    });
}

}  // namespace

void make_levels(Stream& stream, const Maps& maps, const Range* ranges, int size, std::span<const float> taps,
                 float* rows, float* taps_on_device, uint8_t* levels, uint32_t* histograms) {
    const Share share(int64_t{size} * size);
    const int64_t blocks = maps.cases * share.blocks;
    if (taps.empty()) return stream.launch(blocks, resize_kernel, maps, ranges, size, levels, histograms, share);
    const int count = static_cast<int>(taps.size()), radius = count / 2;
    for (int first = 0; first < count; first += kTapsPerLaunch) {
        const int here = std::min(kTapsPerLaunch, count - first);
        TapChunk chunk{};
        std::copy_n(taps.data() + first, here, chunk.values);
        stream.launch(1, store_taps, chunk, taps_on_device + first, here);
    }
    stream.launch(maps.cases * size, smooth_rows, maps, ranges, size, taps_on_device, radius, rows);
    stream.launch(blocks, smooth_columns, rows, size, taps_on_device, radius, levels, histograms, share);
}

}  // namespace lesionforge::cuda
