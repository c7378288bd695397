#include "mask_extraction.hpp"

#include <algorithm>
#include <atomic>
#include <functional>
#include <limits>
#include <new>

#include "bit_image.hpp"
#include "level_passes.hpp"

namespace lesionforge {
namespace {

using std::int64_t;
using std::uint64_t;
using std::uint8_t;

// Where the samples of a resized axis lie: between `before` and `after`, by `weight` towards the latter.
struct Axis {
    std::vector<int> before, after;
    std::vector<float> weight;

    Axis(int64_t length, int64_t size) {
        const double ratio = static_cast<double>(length) / static_cast<double>(size);
        for (int64_t i = 0; i < size; ++i) {
            const double place = std::clamp((static_cast<double>(i) + 0.5) * ratio - 0.5, 0.0, length - 1.0);
            before.push_back(static_cast<int>(place));
            after.push_back(static_cast<int>(std::min<int64_t>(before.back() + 1, length - 1)));
            weight.push_back(static_cast<float>(place - before.back()));
        }
    }
};

// Mirrored at the border, the border itself once.
int64_t mirrored(int64_t place, int64_t length) {
    const int64_t period = std::max<int64_t>(2 * (length - 1), 1);
    place = (place % period + period) % period;
    return std::min({place, period - place, length - 1});
}

// Makes masks of what lies above a threshold; every thread has its own.
class Cleaner {
public:
    explicit Cleaner(const CleanOptions& options)
        : options_(options),
          mask_(options.height, options.width),
          closing_(options.height, options.width, options.half_widths) {}

    void clean(const uint8_t* levels, int threshold, float* out) {
        const int64_t height = options_.height, width = options_.width;
        for (int64_t y = 0; y < height; ++y) pack_above(levels + y * width, threshold, mask_.row(y), width);
        if (!options_.half_widths.empty()) closing_.apply(mask_);
        if (options_.largest_component) largest_.apply(mask_);
        for (int64_t y = 0; y < height; ++y) unpack(mask_.row(y), out + y * width, width);
    }

private:
    CleanOptions options_;
    BitImage mask_;
    Closing closing_;
    LargestComponent largest_;
};

// Turns maps into masks one after the other; every thread has its own.
class Extractor {
public:
    explicit Extractor(const MaskOptions& options)
        : options_(options),
          across_(options.width, options.size),
          down_(options.height, options.size),
          cleaner_({options.size, options.size, options.half_widths, options.largest_component}),
          levels_(static_cast<size_t>(options.size * options.size)) {}

    void extract(const float* map, float* out) {
        const int64_t pixels = options_.height * options_.width;
        scaled_.resize(static_cast<size_t>(pixels));
        const Range range = range_of(map, pixels);
        if (!range.usable()) {
            std::fill_n(out, options_.size * options_.size, 0.0f);
            return;
        }
        stretch(map, scaled_.data(), pixels, range.low, range.span(), 255.0f);
        make_levels(scaled_.data());
        finish(levels_.data(), out);
    }

    void extract(const uint8_t* map, float* out) {
        if (unresized() && options_.taps.empty()) return finish(map, out);
        scaled_.assign(map, map + options_.height * options_.width);
        make_levels(scaled_.data());
        finish(levels_.data(), out);
    }

private:
    bool unresized() const { return options_.height == options_.size && options_.width == options_.size; }

    void make_levels(const float* map) {
        const int64_t size = options_.size;
        if (options_.taps.empty() && unresized()) return round_levels(map, levels_.data(), size * size);
        top_.resize(static_cast<size_t>(size));
        bottom_.resize(static_cast<size_t>(size));
        line_.resize(static_cast<size_t>(size));
        if (!options_.taps.empty()) image_.resize(static_cast<size_t>(size * size));
        int top = -1, bottom = -1;
        for (int64_t y = 0; y < size; ++y) {
            if (down_.before[y] == bottom) {
                top_.swap(bottom_);
                std::swap(top, bottom);
            }
            if (down_.before[y] != top) stretch_row(map, top = down_.before[y], top_);
            if (down_.after[y] != bottom) stretch_row(map, bottom = down_.after[y], bottom_);
            float* line = options_.taps.empty() ? line_.data() : image_.data() + y * size;
            blend(top_.data(), bottom_.data(), down_.weight[y], line, size);
            if (options_.taps.empty()) round_levels(line, levels_.data() + y * size, size);
        }
        if (!options_.taps.empty()) smooth();
    }

    void stretch_row(const float* map, int y, std::vector<float>& row) {
        resize_row(map + y * options_.width, across_.before.data(), across_.after.data(), across_.weight.data(),
                   row.data(), options_.size);
    }

    void smooth() {
        const int64_t size = options_.size, radius = static_cast<int64_t>(options_.taps.size()) / 2;
        std::vector<float> padded(static_cast<size_t>(size + 2 * radius));
        for (int64_t y = 0; y < size; ++y) {
            float* row = image_.data() + y * size;
            for (int64_t x = 0; x < size + 2 * radius; ++x) padded[x] = row[mirrored(x - radius, size)];
            std::fill_n(row, size, 0.0f);
            for (int64_t k = 0; k <= 2 * radius; ++k) accumulate(padded.data() + k, options_.taps[k], row, size);
        }
        for (int64_t y = 0; y < size; ++y) {
            std::fill(line_.begin(), line_.end(), 0.0f);
            for (int64_t k = 0; k <= 2 * radius; ++k)
                accumulate(image_.data() + mirrored(y + k - radius, size) * size, options_.taps[k], line_.data(), size);
            round_levels(line_.data(), levels_.data() + y * size, size);
        }
    }

    void finish(const uint8_t* levels, float* out) {
        const int64_t size = options_.size;
        Histogram histogram;
        histogram.add(levels, size * size);
        cleaner_.clean(levels, histogram.otsu_level(), out);
    }

    const MaskOptions& options_;
    Axis across_, down_;
    Cleaner cleaner_;
    std::vector<uint8_t> levels_;
    std::vector<float> scaled_, top_, bottom_, line_, image_;
};

float threshold_of(const float* map, int64_t pixels, int bins) {
    const Range range = range_of(map, pixels);
    if (!range.finite()) return std::numeric_limits<float>::quiet_NaN();
    if (!range.usable()) return range.low;
    constexpr int64_t kChunk = 4096;
    float scaled[kChunk];
    uint8_t levels[kChunk];
    const auto for_chunks = [&](const std::function<void(const float*, int64_t)>& use) {
        for (int64_t first = 0; first < pixels; first += kChunk) {
            const int64_t count = std::min(kChunk, pixels - first);
            stretch(map + first, scaled, count, range.low, range.span(), static_cast<float>(bins - 1));
            round_levels(scaled, levels, count);
            use(map + first, count);
        }
    };
    Histogram histogram;
    for_chunks([&](const float*, int64_t count) { histogram.add(levels, count); });
    const int threshold = histogram.otsu_level();
    float highest = range.low;
    for_chunks([&](const float* values, int64_t count) {
        for (int64_t i = 0; i < count; ++i)
            if (levels[i] <= threshold) highest = std::max(highest, values[i]);
    });
    return highest;
}

uint8_t threshold_of(const uint8_t* map, int64_t pixels, int) {
    Histogram histogram;
    histogram.add(map, pixels);
    return static_cast<uint8_t>(histogram.otsu_level());
}

template <typename T>
void thresholds(const void* maps, void* out, int64_t cases, int64_t pixels, int bins, int threads) {
    [[maybe_unused]] const int team = static_cast<int>(std::clamp<int64_t>(cases, 1, threads));
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t i = 0; i < cases; ++i)
        static_cast<T*>(out)[i] = threshold_of(static_cast<const T*>(maps) + i * pixels, pixels, bins);
}

// Calls work(worker, case) with each thread's own worker.
template <typename Worker, typename Options, typename Work>
void share_cases(int64_t cases, const Options& options, int threads, Work work) {
    [[maybe_unused]] const int team = static_cast<int>(std::clamp<int64_t>(cases, 1, threads));
    std::atomic<bool> exhausted = false;
#pragma omp parallel num_threads(team)
    try {
        Worker worker(options);
#pragma omp for schedule(static) nowait
        for (int64_t i = 0; i < cases; ++i)
            if (!exhausted) work(worker, i);
    } catch (const std::bad_alloc&) {
        exhausted = true;
    }
    if (exhausted) throw std::bad_alloc();
}

template <typename T>
void masks(const void* maps, float* out, int64_t cases, const MaskOptions& options, int threads) {
    const int64_t pixels = options.height * options.width, made = options.size * options.size;
    share_cases<Extractor>(cases, options, threads, [&](Extractor& extractor, int64_t i) {
        extractor.extract(static_cast<const T*>(maps) + i * pixels, out + i * made);
    });
}

}  // namespace

void otsu_threshold(const void* maps, void* out, bool bytes, int64_t cases, int64_t pixels, int bins, int threads) {
    (bytes ? thresholds<uint8_t> : thresholds<float>)(maps, out, cases, pixels, bins, threads);
}

void extract_masks(const void* maps, float* out, bool bytes, int64_t cases, const MaskOptions& options, int threads) {
    (bytes ? masks<uint8_t> : masks<float>)(maps, out, cases, options, threads);
}

void clean_masks(const uint8_t* masks, float* out, int64_t cases, const CleanOptions& options, int threads) {
    const int64_t pixels = options.height * options.width;
    share_cases<Cleaner>(cases, options, threads, [&](Cleaner& cleaner, int64_t i) {
        cleaner.clean(masks + i * pixels, 0, out + i * pixels);
    });
}

}  // namespace lesionforge
