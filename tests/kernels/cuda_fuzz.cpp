// Runs the CUDA kernels on the host on odd sizes and values and compares them with the C++ kernels; to be compiled with
// sanitizers. Workspaces and results are full of garbage at first.
#include <algorithm>
#include <cmath>
#include <cstdio>
#include <cstdlib>
#include <limits>
#include <random>
#include <vector>

#include "../../kernels/csrc/mask_extraction.hpp"
#include "../../kernels/csrc/seeded_noise.hpp"
#include "cuda_on_host/all.cpp"

namespace {

std::mt19937 rng;

int draw(int low, int high) { return std::uniform_int_distribution<int>(low, high)(rng); }

template <typename T>
std::vector<T> garbage(std::int64_t count) {
    std::vector<T> values(static_cast<std::size_t>(count));
    auto* bytes = reinterpret_cast<unsigned char*>(values.data());
    std::generate_n(bytes, values.size() * sizeof(T), [] { return static_cast<unsigned char>(rng()); });
    return values;
}

template <typename T>
void expect_equal(const std::vector<T>& made, const std::vector<T>& expected, const char* what) {
    const auto same = [](T a, T b) { return a == b || (a != a && b != b); };
    if (std::equal(made.begin(), made.end(), expected.begin(), expected.end(), same)) return;
    std::fprintf(stderr, "%s differ\n", what);
    std::exit(1);
}

std::vector<int> ellipse(int diameter) {
    const int radius = diameter / 2;
    const double inverse = radius > 0 ? 1.0 / (radius * radius) : 0.0;
    std::vector<int> widths;
    for (int y = -radius; diameter != 0 && y <= radius; ++y)
        widths.push_back(static_cast<int>(std::nearbyint(radius * std::sqrt((radius * radius - y * y) * inverse))));
    return widths;
}

std::vector<float> random_maps(int cases, int pixels) {
    std::vector<float> maps(static_cast<std::size_t>(cases * pixels));
    for (float& value : maps) value = std::normal_distribution<float>(0, 1)(rng) * (draw(0, 4) == 0 ? 1e30f : 1.0f);
    if (!maps.empty() && draw(0, 5) == 0) maps.back() = std::numeric_limits<float>::quiet_NaN();
    if (!maps.empty() && draw(0, 5) == 0) maps.front() = -std::numeric_limits<float>::infinity();
    if (!maps.empty() && draw(0, 5) == 0) std::fill_n(maps.begin(), pixels, 2.5f);
    return maps;
}

template <typename T>
void compare_thresholds(const std::vector<T>& maps, int cases, int height, int width, int bins) {
    const bool bytes = sizeof(T) == 1;
    auto expected = garbage<T>(cases), made = garbage<T>(cases);
    auto space = garbage<char>(threshold_workspace(cases));
    lesionforge::otsu_threshold(maps.data(), expected.data(), bytes, cases, height * width, bins, 1);
    if (otsu_threshold(maps.data(), made.data(), bytes, cases, height, width, bins, space.data(), 0, nullptr))
        std::exit(1);
    expect_equal(made, expected, "thresholds");
}

template <typename T>
double compare_masks(const std::vector<T>& maps, int cases, int closing, const lesionforge::MaskOptions& options) {
    const bool bytes = sizeof(T) == 1;
    const int size = static_cast<int>(options.size);
    auto expected = garbage<float>(cases * size * size), made = garbage<float>(cases * size * size);
    auto space = garbage<char>(mask_workspace(cases, size, size));
    lesionforge::extract_masks(maps.data(), expected.data(), bytes, cases, options, 1);
    if (extract_masks(maps.data(), made.data(), bytes, cases, static_cast<int>(options.height),
                      static_cast<int>(options.width), size, closing, options.largest_component, options.taps.data(),
                      static_cast<int>(options.taps.size()), space.data(), 0, nullptr))
        std::exit(1);
    expect_equal(made, expected, "masks");
    return std::count(made.begin(), made.end(), 1.0f);
}

double compare_extraction() {
    const int cases = draw(0, 3), height = draw(1, 40), width = draw(1, 40);
    const int size = draw(0, 2) == 0 && height == width ? height : draw(1, 100);
    const int closing = draw(0, 1) * (2 * draw(0, 60) + 1);
    std::vector<float> taps(static_cast<std::size_t>(draw(0, 1) * (2 * draw(0, 9) + 1)));
    for (float& tap : taps) tap = 1.0f / static_cast<float>(taps.size());
    const lesionforge::MaskOptions options{height, width, size, ellipse(closing), draw(0, 1) == 1, taps};
    const std::vector<float> maps = random_maps(cases, height * width);
    std::vector<std::uint8_t> bytes(maps.size());
    for (std::uint8_t& value : bytes) value = static_cast<std::uint8_t>(draw(0, 255));
    compare_thresholds(maps, cases, height, width, draw(2, 256));
    compare_thresholds(bytes, cases, height, width, 256);
    return compare_masks(maps, cases, closing, options) + compare_masks(bytes, cases, closing, options);
}

double compare_cleaning() {
    const int cases = draw(0, 3), height = draw(1, 70), width = draw(1, 70);
    const int closing = draw(0, 1) * (2 * draw(0, 9) + 1);
    const lesionforge::CleanOptions options{height, width, ellipse(closing), draw(0, 3) != 0};
    std::vector<std::uint8_t> masks(static_cast<std::size_t>(cases * height * width));
    const int rarity = draw(0, 4);
    for (std::uint8_t& value : masks) value = draw(0, rarity) == 0;
    auto expected = garbage<float>(cases * height * width), made = garbage<float>(cases * height * width);
    auto space = garbage<char>(mask_workspace(cases, height, width));
    lesionforge::clean_masks(masks.data(), expected.data(), cases, options, 1);
    if (clean_masks(masks.data(), made.data(), cases, height, width, closing, options.largest_component, space.data(),
                    0, nullptr))
        std::exit(1);
    expect_equal(made, expected, "cleaned masks");
    return std::count(made.begin(), made.end(), 1.0f);
}

void compare_noise() {
    const int cases = draw(0, 3), count = draw(0, 70), step = draw(0, 999), stream = draw(0, 999);
    std::vector<std::uint64_t> seeds(static_cast<std::size_t>(cases));
    for (std::uint64_t& seed : seeds) seed = std::uniform_int_distribution<std::uint64_t>()(rng);
    auto expected = garbage<float>(cases * count), made = garbage<float>(cases * count);
    lesionforge::seeded_normal(seeds.data(), expected.data(), cases, count, step, stream, 1);
    if (seeded_normal(seeds.data(), made.data(), cases, count, step, stream, 0, nullptr)) std::exit(1);
    expect_equal(made, expected, "normals");
    lesionforge::seeded_uniform(seeds.data(), expected.data(), cases, count, step, stream, 1);
    if (seeded_uniform(seeds.data(), made.data(), cases, count, step, stream, 0, nullptr)) std::exit(1);
    expect_equal(made, expected, "uniforms");
}

}  // namespace

int main(int, char** arguments) {
    rng.seed(7);
    double pixels = 0;
    for (int round = std::atoi(arguments[1]); round > 0; --round) {
        pixels += compare_extraction() + compare_cleaning();
        compare_noise();
    }
    std::printf("%.0f\n", pixels);
}
