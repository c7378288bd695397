// Batches of binary images of 32 pixels a word, pixel x of a row in bit x % 32 of word x / 32, and what masks need done
// to them. Bits beyond the width are 0.
#pragma once

#include "stream.cuh"

namespace lesionforge::cuda {

struct BitImages {
    std::uint32_t* words;
    std::int64_t cases;
    int height, width;

    __host__ __device__ int stride() const { return (width + kWarp - 1) / kWarp; }
    __host__ __device__ std::int64_t words_of_case() const { return std::int64_t{height} * stride(); }
    __host__ __device__ std::int64_t count() const { return cases * words_of_case(); }
};

// Runs of a word are the nodes of a union-find forest, 16 places a word; numbers count from the first of the case.
constexpr int kRunsOfWord = kWarp / 2;

struct Components {
    std::uint32_t* parents;  // kRunsOfWord a word
    std::uint32_t* areas;    // likewise
    unsigned long long* largest;  // one a case, 0 at first
};

// Levels above the threshold of their case.
void pack(Stream& stream, const std::uint8_t* levels, const int* thresholds, BitImages to);
// Closes by OpenCV's ellipse of `diameter` pixels, odd, across; what lies outside the image is ignored.
void close(Stream& stream, BitImages images, BitImages scratch, int diameter);
// Finds the largest 8-connected component of each case, of equal ones that whose first pixel comes first row by row.
void find_largest(Stream& stream, BitImages images, Components components);
// Floats, 0 or 1; of `largest_only` those of the components found before.
void unpack(Stream& stream, BitImages images, Components components, bool largest_only, float* out);

}  // namespace lesionforge::cuda
