#include "level_passes.hpp"

#include <algorithm>
#include <bit>
#include <cstring>

#include "multiarch.hpp"

namespace lesionforge {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

static_assert(std::endian::native == std::endian::little, "pack_above and unpack number bytes from the lowest");

LESIONFORGE_MULTIARCH
Range range_of(const float* map, int64_t count) {
    constexpr int64_t kLanes = 32;
    float low[kLanes], high[kLanes];
    uint32_t bits[kLanes] = {};
    std::fill_n(low, kLanes, map[0]);
    std::fill_n(high, kLanes, map[0]);
    const auto take = [&](int64_t i, int64_t lane) LESIONFORGE_INLINED {
        const float x = map[i];
        low[lane] = x < low[lane] ? x : low[lane];
        high[lane] = x > high[lane] ? x : high[lane];
        bits[lane] = std::max(bits[lane], std::bit_cast<uint32_t>(x) & 0x7FFFFFFFu);
    };
    const int64_t whole = count / kLanes * kLanes;
    for (int64_t i = 0; i < whole; i += kLanes)
        for (int64_t lane = 0; lane < kLanes; ++lane) take(i + lane, lane);
    for (int64_t i = whole; i < count; ++i) take(i, i - whole);
    return {*std::min_element(low, low + kLanes), *std::max_element(high, high + kLanes),
            *std::max_element(bits, bits + kLanes)};
}

LESIONFORGE_MULTIARCH
void stretch(const float* map, float* out, int64_t count, float low, float span, float top) {
    for (int64_t i = 0; i < count; ++i) out[i] = (map[i] - low) / span * top;
}

LESIONFORGE_MULTIARCH
void round_levels(const float* values, uint8_t* levels, int64_t count) {
    for (int64_t i = 0; i < count; ++i) levels[i] = static_cast<uint8_t>(static_cast<int>(values[i] + 0.5f));
}

LESIONFORGE_MULTIARCH
void resize_row(const float* row, const int* before, const int* after, const float* weight, float* out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[i] = row[before[i]] + (row[after[i]] - row[before[i]]) * weight[i];
}

LESIONFORGE_MULTIARCH
void blend(const float* top, const float* bottom, float weight, float* out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[i] = top[i] + (bottom[i] - top[i]) * weight;
}

LESIONFORGE_MULTIARCH
void accumulate(const float* values, float tap, float* out, int64_t count) {
    for (int64_t i = 0; i < count; ++i) out[i] += values[i] * tap;
}

// Eight bytes of 0 or 1 become eight bits by one multiplication, which sends byte j to bit 56 + j.
LESIONFORGE_MULTIARCH
void pack_above(const uint8_t* levels, int threshold, uint64_t* words, int64_t count) {
    const auto limit = static_cast<uint8_t>(threshold);
    for (int64_t first = 0; first < count; first += 64) {
        uint8_t above[64] = {};
        const int64_t here = std::min<int64_t>(64, count - first);
        if (here == 64) {
            for (int i = 0; i < 64; ++i) above[i] = levels[first + i] > limit;
        } else {
            for (int64_t i = 0; i < here; ++i) above[i] = levels[first + i] > limit;
        }
        uint64_t word = 0;
        for (int i = 0; i < 8; ++i) {
            uint64_t eight;
            std::memcpy(&eight, above + 8 * i, 8);
            word |= (eight * 0x0102040810204080u >> 56) << (8 * i);
        }
        words[first / 64] = word;
    }
}

void unpack(const uint64_t* words, float* out, int64_t count) {
    for (int64_t first = 0; first < count; first += 64) {
        const uint64_t word = words[first / 64];
        const int64_t here = std::min<int64_t>(64, count - first);
        if (word == 0 || word == ~uint64_t{0}) {
            std::fill_n(out + first, here, word == 0 ? 0.0f : 1.0f);
        } else {
            for (int64_t i = 0; i < here; ++i) out[first + i] = static_cast<float>(word >> i & 1u);
        }
    }
}

void Histogram::add(const uint8_t* levels, int64_t count) {
    const int64_t whole = count / 8 * 8;
    for (int64_t i = 0; i < whole; i += 8) {
        uint64_t eight;
        std::memcpy(&eight, levels + i, 8);
        for (int k = 0; k < 8; ++k) ++counts_[k % 4][eight >> (8 * k) & 0xFFu];
    }
    for (int64_t i = whole; i < count; ++i) ++counts_[0][levels[i]];
}

int Histogram::otsu_level() const {
    int64_t counts[256], pixels = 0, sum = 0;
    int last = 0;
    for (int level = 0; level < 256; ++level) {
        counts[level] = int64_t{counts_[0][level]} + counts_[1][level] + counts_[2][level] + counts_[3][level];
        pixels += counts[level];
        sum += counts[level] * level;
        if (counts[level] > 0) last = level;
    }
    int best = last;
    double greatest = -1.0;
    int64_t below = 0, sum_below = 0;
    for (int level = 0; level < last; ++level) {
        below += counts[level];
        sum_below += counts[level] * level;
        if (below == 0) continue;
        const auto difference = static_cast<double>(pixels * sum_below - below * sum);
        const double weights = static_cast<double>(below) * static_cast<double>(pixels - below);
        const double between = difference * difference / weights;
        if (between > greatest) {
            greatest = between;
            best = level;
        }
    }
    return best;
}

}  // namespace lesionforge
