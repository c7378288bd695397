// Masks from soft maps, a batch at a time; the definition of every pixel is kernels/mask_extraction/reference.py.
#include "bit_images.cuh"
#include "levels.cuh"

namespace lesionforge::cuda {
namespace {

using std::int64_t;
using std::size_t;
using std::uint32_t;
using std::uint8_t;

// Hands out aligned pieces of a workspace; from none at all it tells how large it must be.
class Pieces {
public:
    explicit Pieces(void* workspace) : begin_(static_cast<char*>(workspace)) {}

    template <typename T>
    T* take(int64_t count) {
        T* const piece = begin_ == nullptr ? nullptr : reinterpret_cast<T*>(begin_ + taken_);
        taken_ += (static_cast<size_t>(count) * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
        return piece;
    }
    size_t taken() const { return taken_; }

private:
    static constexpr size_t kAlignment = 256;
    char* begin_;
    size_t taken_ = 0;
};

struct ThresholdSpace {
    Range* ranges;
    uint32_t *histograms, *highest;
    size_t to_zero;
    int* thresholds;

    ThresholdSpace(Pieces& pieces, int64_t cases)
        : ranges(pieces.take<Range>(cases)),
          histograms(pieces.take<uint32_t>(cases * kLevels)),
          highest(pieces.take<uint32_t>(cases)),
          to_zero(pieces.taken()),
          thresholds(pieces.take<int>(cases)) {}
};

struct MaskSpace {
    ThresholdSpace of_levels;
    unsigned long long* largest;
    float* taps;
    uint8_t* levels;
    BitImages images, scratch;
    Components components;

    MaskSpace(Pieces& pieces, int64_t cases, int height, int width)
        : of_levels(pieces, cases),
          largest(pieces.take<unsigned long long>(cases)),
          taps(pieces.take<float>(kMaxTaps)),
          levels(pieces.take<uint8_t>(cases * height * width)),
          images{nullptr, cases, height, width},
          scratch(images) {
        images.words = pieces.take<uint32_t>(images.count());
        scratch.words = pieces.take<uint32_t>(images.count());
        components.parents = pieces.take<uint32_t>(images.count() * kRunsOfWord);
        components.areas = pieces.take<uint32_t>(images.count() * kRunsOfWord);
        components.largest = largest;
    }
};

struct Cleaning {
    int closing;  // diameter of the ellipse; 0: none
    bool largest_component;
};

void clean(Stream& stream, const uint8_t* levels, MaskSpace& space, const Cleaning& options, float* out) {
    pack(stream, levels, space.of_levels.thresholds, space.images);
    if (options.closing != 0) close(stream, space.images, space.scratch, options.closing);
    if (options.largest_component) {
        stream.zero(space.largest, static_cast<size_t>(space.images.cases) * sizeof(*space.largest));
        find_largest(stream, space.images, space.components);
    }
    unpack(stream, space.images, space.components, options.largest_component, out);
}

void extract(Stream& stream, const Maps& maps, int size, std::span<const float> taps, const Cleaning& options,
             MaskSpace& space, float* out) {
    const ThresholdSpace& of_levels = space.of_levels;
    const bool as_they_are = maps.bytes && maps.height == size && maps.width == size && taps.empty();
    const auto* levels = as_they_are ? static_cast<const uint8_t*>(maps.values) : space.levels;
    stream.zero(of_levels.ranges, of_levels.to_zero);
    if (!maps.bytes) find_ranges(stream, maps, of_levels.ranges);
    if (as_they_are) {
        count_levels(stream, maps, of_levels.ranges, kLevels - 1, of_levels.histograms);
    } else {
        // The masks are written last, so that their memory serves for the smoothed rows.
        make_levels(stream, maps, of_levels.ranges, size, taps, out, space.taps, space.levels, of_levels.histograms);
    }
    find_thresholds(stream, of_levels.histograms, maps.cases, of_levels.thresholds);
    clean(stream, levels, space, options, out);
}

}  // namespace
}  // namespace lesionforge::cuda

using namespace lesionforge::cuda;

LESIONFORGE_EXPORT const char* error_message(int error) { return cudaGetErrorString(static_cast<cudaError_t>(error)); }

// Bytes.
LESIONFORGE_EXPORT std::int64_t threshold_workspace(std::int64_t cases) {
    Pieces pieces(nullptr);
    ThresholdSpace(pieces, cases);
    return static_cast<std::int64_t>(pieces.taken());
}

LESIONFORGE_EXPORT std::int64_t mask_workspace(std::int64_t cases, int height, int width) {
    Pieces pieces(nullptr);
    MaskSpace(pieces, cases, height, width);
    return static_cast<std::int64_t>(pieces.taken());
}

// Maps are floats or, if `bytes`, uint8; out[i] has the same type. The workspace holds threshold_workspace(cases).
LESIONFORGE_EXPORT int otsu_threshold(const void* maps, void* out, int bytes, std::int64_t cases, int height, int width,
                                      int bins, void* workspace, int device, cudaStream_t on) {
    Stream stream(device, on);
    Pieces pieces(workspace);
    const ThresholdSpace space(pieces, cases);
    const Maps of{maps, bytes != 0, cases, height, width};
    stream.zero(space.ranges, space.to_zero);
    if (!of.bytes) find_ranges(stream, of, space.ranges);
    count_levels(stream, of, space.ranges, bins - 1, space.histograms);
    find_thresholds(stream, space.histograms, cases, space.thresholds);
    if (of.bytes) {
        to_bytes(stream, space.thresholds, cases, static_cast<std::uint8_t*>(out));
    } else {
        auto* values = static_cast<float*>(out);
        find_highest(stream, of, space.ranges, bins - 1, space.thresholds, space.highest, values);
    }
    return stream.error();
}

// out: cases x size x size floats, 0 or 1. taps: in main memory. The workspace holds mask_workspace(cases, size, size).
LESIONFORGE_EXPORT int extract_masks(const void* maps, float* out, int bytes, std::int64_t cases, int height, int width,
                                     int size, int closing, int largest_component, const float* taps, int tap_count,
                                     void* workspace, int device, cudaStream_t on) {
    Stream stream(device, on);
    Pieces pieces(workspace);
    MaskSpace space(pieces, cases, size, size);
    extract(stream, {maps, bytes != 0, cases, height, width}, size,
            {taps, static_cast<std::size_t>(tap_count)}, {closing, largest_component != 0}, space, out);
    return stream.error();
}

// masks: bytes, 0 outside. The workspace holds mask_workspace(cases, height, width).
LESIONFORGE_EXPORT int clean_masks(const std::uint8_t* masks, float* out, std::int64_t cases, int height, int width,
                                   int closing, int largest_component, void* workspace, int device, cudaStream_t on) {
    Stream stream(device, on);
    Pieces pieces(workspace);
    MaskSpace space(pieces, cases, height, width);
    stream.zero(space.of_levels.thresholds, static_cast<std::size_t>(cases) * sizeof(int));
    clean(stream, masks, space, {closing, largest_component != 0}, out);
    return stream.error();
}
