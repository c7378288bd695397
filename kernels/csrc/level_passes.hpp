// Passes over the pixels of one map: its range, its levels, their histogram, and bits from levels and back.
#pragma once

#include <cmath>
#include <cstdint>

namespace lesionforge {

struct Range {
    float low, high;
    std::uint32_t largest_bits;  // of any magnitude; infinities and NaN lie above all numbers

    float span() const { return high - low; }
    bool finite() const { return largest_bits < 0x7F800000u && std::isfinite(span()); }
    bool usable() const { return finite() && span() > 0; }
};

class Histogram {
public:
    void add(const std::uint8_t* levels, std::int64_t count);
    // The smallest level with the greatest variance between the classes; of a constant map its level.
    int otsu_level() const;

private:
    // Neighbouring pixels are often equal: four tables spare the wait for the last increment.
    std::uint32_t counts_[4][256] = {};
};

Range range_of(const float* map, std::int64_t count);
// out = (map - low) / span * top
void stretch(const float* map, float* out, std::int64_t count, float low, float span, float top);
void round_levels(const float* values, std::uint8_t* levels, std::int64_t count);
void resize_row(const float* row, const int* before, const int* after, const float* weight, float* out,
                std::int64_t count);
void blend(const float* top, const float* bottom, float weight, float* out, std::int64_t count);
void accumulate(const float* values, float tap, float* out, std::int64_t count);
void pack_above(const std::uint8_t* levels, int threshold, std::uint64_t* words, std::int64_t count);
void unpack(const std::uint64_t* words, float* out, std::int64_t count);

}  // namespace lesionforge
