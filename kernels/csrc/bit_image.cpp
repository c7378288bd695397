#include "bit_image.hpp"

#include <algorithm>
#include <bit>
#include <utility>

namespace lesionforge {
namespace {

using std::int32_t;
using std::int64_t;
using std::uint64_t;

// row |= row moved by `by` pixels to higher x; to lower x is the mirror of it.
void spread_up(const uint64_t* from, uint64_t* row, int64_t words, int by) {
    const int64_t whole = by / 64;
    const int bits = by % 64;
    for (int64_t i = words - 1; i >= whole; --i) {
        uint64_t moved = from[i - whole] << bits;
        if (bits != 0 && i - whole > 0) moved |= from[i - whole - 1] >> (64 - bits);
        row[i] |= moved;
    }
}

void spread_down(const uint64_t* from, uint64_t* row, int64_t words, int by) {
    const int64_t whole = by / 64;
    const int bits = by % 64;
    for (int64_t i = 0; i + whole < words; ++i) {
        uint64_t moved = from[i + whole] >> bits;
        if (bits != 0 && i + whole + 1 < words) moved |= from[i + whole + 1] << (64 - bits);
        row[i] |= moved;
    }
}

// Widens a row by `width` pixels to both sides in a logarithmic number of shifts. A longer step than one beyond what is
// covered would need pixels that the border has cut off.
void widen(const uint64_t* from, uint64_t* row, uint64_t* scratch, int64_t words, int width) {
    std::copy_n(from, words, row);
    for (int covered = 0; covered < width;) {
        const int step = std::min(covered + 1, width - covered);
        std::copy_n(row, words, scratch);
        spread_up(scratch, row, words, step);
        spread_down(scratch, row, words, step);
        covered += step;
    }
}

int64_t next_bit(const uint64_t* row, int64_t from, int64_t width, uint64_t flip) {
    if (from >= width) return width;
    int64_t word = from / 64;
    uint64_t bits = (row[word] ^ flip) & (~uint64_t{0} << (from % 64));
    while (bits == 0) {
        if (++word * 64 >= width) return width;
        bits = row[word] ^ flip;
    }
    return std::min(width, word * 64 + std::countr_zero(bits));
}

void clear(uint64_t* row, int64_t begin, int64_t end) {
    for (int64_t x = begin; x < end;) {
        const int64_t stop = std::min(end, (x / 64 + 1) * 64);
        const uint64_t ones = stop - x == 64 ? ~uint64_t{0} : (uint64_t{1} << (stop - x)) - 1;
        row[x / 64] &= ~(ones << (x % 64));
        x = stop;
    }
}

void complement(BitImage& image) {
    const int64_t stride = image.stride();
    for (int64_t y = 0; y < image.height(); ++y) {
        uint64_t* row = image.row(y);
        for (int64_t i = 0; i < stride; ++i) row[i] = ~row[i];
        row[stride - 1] &= image.last_word();
    }
}

}  // namespace

BitImage::BitImage(int64_t height, int64_t width)
    : height_(height), width_(width), stride_((width + 63) / 64), words_(static_cast<size_t>(height * stride_)) {}

uint64_t BitImage::last_word() const {
    return width_ % 64 == 0 ? ~uint64_t{0} : (uint64_t{1} << (width_ % 64)) - 1;
}

Closing::Closing(int64_t height, int64_t width, std::vector<int> half_widths)
    : half_widths_(std::move(half_widths)), distinct_(half_widths_), dilated_(height, width) {
    std::sort(distinct_.begin(), distinct_.end());
    distinct_.erase(std::unique(distinct_.begin(), distinct_.end()), distinct_.end());
    rows_.resize(distinct_.size() * static_cast<size_t>(dilated_.stride()));
    scratch_.resize(static_cast<size_t>(dilated_.stride()));
}

// Erosion is dilation of the complement: the element is symmetric, and both ignore what lies outside.
void Closing::apply(BitImage& image) {
    dilate(image, dilated_);
    complement(dilated_);
    dilate(dilated_, image);
    complement(image);
}

void Closing::dilate(const BitImage& from, BitImage& to) {
    const int64_t height = from.height(), words = from.stride();
    const auto radius = static_cast<int64_t>(half_widths_.size()) / 2;
    std::fill_n(to.row(0), height * words, uint64_t{0});
    for (int64_t y = 0; y < height; ++y) {
        const uint64_t* source = from.row(y);
        if (std::all_of(source, source + words, [](uint64_t word) { return word == 0; })) continue;
        for (size_t k = 0; k < distinct_.size(); ++k) {
            uint64_t* wide = rows_.data() + static_cast<int64_t>(k) * words;
            const int done = k == 0 ? 0 : distinct_[k - 1];
            widen(k == 0 ? source : wide - words, wide, scratch_.data(), words, distinct_[k] - done);
            wide[words - 1] &= from.last_word();
        }
        for (int64_t i = std::max(-radius, -y); i <= std::min(radius, height - 1 - y); ++i) {
            const int width = half_widths_[static_cast<size_t>(i + radius)];
            const int64_t k = std::lower_bound(distinct_.begin(), distinct_.end(), width) - distinct_.begin();
            const uint64_t* wide = rows_.data() + k * words;
            uint64_t* row = to.row(y + i);
            for (int64_t j = 0; j < words; ++j) row[j] |= wide[j];
        }
    }
}

void LargestComponent::apply(BitImage& image) {
    collect(image);
    join_rows();
    const auto count = static_cast<int32_t>(runs_.size());
    int32_t best = 0;
    for (int32_t i = 0; i < count; ++i) {
        const int32_t top = root(i);
        if (top != i) runs_[top].area += runs_[i].end - runs_[i].begin;
    }
    for (int32_t i = 0; i < count; ++i)
        if (runs_[i].parent == i && runs_[i].area > runs_[best].area) best = i;
    for (int64_t y = 0; y < image.height(); ++y)
        for (int32_t i = row_begin_[y]; i < row_begin_[y + 1]; ++i)
            if (root(i) != best) clear(image.row(y), runs_[i].begin, runs_[i].end);
}

void LargestComponent::collect(const BitImage& image) {
    runs_.clear();
    row_begin_.clear();
    const int64_t width = image.width();
    for (int64_t y = 0; y < image.height(); ++y) {
        row_begin_.push_back(static_cast<int32_t>(runs_.size()));
        const uint64_t* row = image.row(y);
        for (int64_t x = next_bit(row, 0, width, 0); x < width;) {
            const int64_t end = next_bit(row, x, width, ~uint64_t{0});
            runs_.push_back({static_cast<int32_t>(x), static_cast<int32_t>(end), static_cast<int32_t>(runs_.size()),
                             end - x});
            x = next_bit(row, end, width, 0);
        }
    }
    row_begin_.push_back(static_cast<int32_t>(runs_.size()));
}

// Runs of neighbouring rows touch, corners included, where each begins no later than the other ends.
void LargestComponent::join_rows() {
    for (size_t y = 1; y + 1 < row_begin_.size(); ++y) {
        int32_t above = row_begin_[y - 1], here = row_begin_[y];
        while (above < row_begin_[y] && here < row_begin_[y + 1]) {
            const Run &a = runs_[above], &b = runs_[here];
            if (a.begin <= b.end && b.begin <= a.end) {
                const int32_t p = root(above), q = root(here);
                runs_[std::max(p, q)].parent = std::min(p, q);
            }
            ++(a.end < b.end ? above : here);
        }
    }
}

int32_t LargestComponent::root(int32_t run) {
    while (runs_[run].parent != run) {
        runs_[run].parent = runs_[runs_[run].parent].parent;
        run = runs_[run].parent;
    }
    return run;
}

}  // namespace lesionforge
