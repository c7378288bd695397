// Binary images of 64 pixels a word, pixel x of a row in bit x % 64 of word x / 64, and what masks need done to them.
#pragma once

#include <cstdint>
#include <vector>

namespace lesionforge {

class BitImage {
public:
    BitImage(std::int64_t height, std::int64_t width);

    std::uint64_t* row(std::int64_t y) { return words_.data() + y * stride_; }
    const std::uint64_t* row(std::int64_t y) const { return words_.data() + y * stride_; }
    std::int64_t height() const { return height_; }
    std::int64_t width() const { return width_; }
    std::int64_t stride() const { return stride_; }
    // Bits of a row's last word that are pixels; the others are 0 outside of these functions.
    std::uint64_t last_word() const;

private:
    std::int64_t height_, width_, stride_;
    std::vector<std::uint64_t> words_;
};

// Closes by an element whose row i reaches half_widths[i] pixels to both sides; pixels outside the image are ignored.
class Closing {
public:
    Closing(std::int64_t height, std::int64_t width, std::vector<int> half_widths);
    void apply(BitImage& image);

private:
    void dilate(const BitImage& from, BitImage& to);

    std::vector<int> half_widths_, distinct_;
    BitImage dilated_;
    std::vector<std::uint64_t> rows_, scratch_;  // one widened row for each distinct width
};

// Keeps the largest 8-connected component, of equal ones that whose first pixel comes first row by row.
class LargestComponent {
public:
    void apply(BitImage& image);

private:
    struct Run {
        std::int32_t begin, end, parent;  // pixels [begin, end) of a row
        std::int64_t area;
    };
    void collect(const BitImage& image);
    void join_rows();
    std::int32_t root(std::int32_t run);

    std::vector<Run> runs_;
    std::vector<std::int32_t> row_begin_;
};

}  // namespace lesionforge
