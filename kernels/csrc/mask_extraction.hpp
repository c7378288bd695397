// Masks from soft maps; the definition of every pixel is kernels/mask_extraction/reference.py.
#pragma once

#include <cstdint>
#include <vector>

namespace lesionforge {

struct CleanOptions {
    std::int64_t height, width;    // of a mask
    std::vector<int> half_widths;  // rows of the closing's structuring element; empty: no closing
    bool largest_component;
};

struct MaskOptions {
    std::int64_t height, width;     // of a map
    std::int64_t size;              // of a mask, a side
    std::vector<int> half_widths;   // as above
    bool largest_component;
    std::vector<float> taps;        // of the smoothing; empty: no smoothing
};

// Maps are float or, if `bytes`, uint8; out[i] has the same type.
void otsu_threshold(const void* maps, void* out, bool bytes, std::int64_t cases, std::int64_t pixels, int bins,
                    int threads);

// out: cases x size x size floats, 0 or 1. Throws std::bad_alloc without leaving a thread behind.
void extract_masks(const void* maps, float* out, bool bytes, std::int64_t cases, const MaskOptions& options,
                   int threads);

// masks: bytes, 0 outside; out likewise, of the same shape.
void clean_masks(const std::uint8_t* masks, float* out, std::int64_t cases, const CleanOptions& options, int threads);

}  // namespace lesionforge
