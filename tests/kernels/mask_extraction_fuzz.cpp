// Runs mask extraction on odd sizes and values, to be compiled with sanitizers; the results are checked in Python.
#include <algorithm>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "../../kernels/csrc/mask_extraction.hpp"

namespace {

std::vector<int> half_widths(int diameter) {
    std::vector<int> widths(static_cast<size_t>(diameter));
    for (int i = 0; i < diameter; ++i) widths[i] = std::min(i, diameter - 1 - i);
    return widths;
}

}  // namespace

int main() {
    std::mt19937 rng(7);
    const auto draw = [&](int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); };
    double pixels = 0;
    for (int round = 0; round < 400; ++round) {
        const int cases = draw(0, 3), height = draw(1, 70), width = draw(1, 70);
        const int size = draw(0, 2) == 0 && height == width ? height : draw(1, 140);
        std::vector<float> maps(static_cast<size_t>(cases) * height * width), taps(draw(0, 1) * (2 * draw(0, 9) + 1));
        for (float& value : maps) value = std::normal_distribution<float>(0, 1)(rng) * (draw(0, 4) == 0 ? 1e30f : 1.0f);
        if (!maps.empty() && draw(0, 5) == 0) maps.back() = std::numeric_limits<float>::quiet_NaN();
        if (!maps.empty() && draw(0, 5) == 0) maps.front() = std::numeric_limits<float>::infinity();
        for (float& tap : taps) tap = 1.0f / static_cast<float>(taps.size());
        const lesionforge::MaskOptions options{height, width, size, half_widths(draw(0, 1) * (2 * draw(0, 80) + 1)),
                                               draw(0, 1) == 1, taps};
        std::vector<float> masks(static_cast<size_t>(cases) * size * size);
        std::vector<std::uint8_t> bytes(maps.size()), byte_thresholds(static_cast<size_t>(cases));
        for (std::uint8_t& value : bytes) value = static_cast<std::uint8_t>(draw(0, 255));
        std::vector<float> thresholds(static_cast<size_t>(cases));
        const int threads = draw(1, 3);
        lesionforge::extract_masks(maps.data(), masks.data(), false, cases, options, threads);
        lesionforge::extract_masks(bytes.data(), masks.data(), true, cases, options, threads);
        lesionforge::otsu_threshold(maps.data(), thresholds.data(), false, cases, height * width, draw(2, 256), threads);
        lesionforge::otsu_threshold(bytes.data(), byte_thresholds.data(), true, cases, height * width, 256, threads);
        for (const float value : masks) pixels += value;
    }
    std::printf("%.0f\n", pixels);
}
