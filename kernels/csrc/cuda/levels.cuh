// Levels of soft maps, their histograms and thresholds; the definition is kernels/mask_extraction/reference.py.
// Every operation on floats is one that IEEE 754 rounds, and none is fused: the bits are those of the other backends.
#pragma once

#include <span>

#include "stream.cuh"

namespace lesionforge::cuda {

constexpr int kLevels = 256;
constexpr int kMaxSize = 8192;    // of a side, as kernels/mask_extraction/__init__.py has it
constexpr int kMaxTaps = 8001;    // of the smoothing, likewise

// cases x height x width floats or bytes.
struct Maps {
    const void* values;
    bool bytes;
    std::int64_t cases;
    int height, width;

    std::int64_t pixels() const { return std::int64_t{height} * width; }
};

// Range of a map as ordered keys, the lower end inverted: both grow from 0.
struct Range {
    std::uint32_t inverted_low, high;
};

// What they read and write per case must be zero at first: ranges, histograms, highest.
void find_ranges(Stream& stream, const Maps& maps, Range* ranges);
// Histograms of bytes as they are, or of floats stretched to [0, top].
void count_levels(Stream& stream, const Maps& maps, const Range* ranges, int top, std::uint32_t* histograms);
// Levels of the maps resized to size x size and, where there are taps, smoothed; `rows` holds size^2 floats a case and
// `taps_on_device` the taps, both untouched without smoothing.
void make_levels(Stream& stream, const Maps& maps, const Range* ranges, int size, std::span<const float> taps,
                 float* rows, float* taps_on_device, std::uint8_t* levels, std::uint32_t* histograms);
void find_thresholds(Stream& stream, const std::uint32_t* histograms, std::int64_t cases, int* thresholds);
// The largest value of each map whose level is at most the threshold; NaN for a map that is not finite.
void find_highest(Stream& stream, const Maps& maps, const Range* ranges, int top, const int* thresholds,
                  std::uint32_t* highest, float* out);
void to_bytes(Stream& stream, const int* thresholds, std::int64_t cases, std::uint8_t* out);

}  // namespace lesionforge::cuda
