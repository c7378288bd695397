#include "bit_images.cuh"

namespace lesionforge::cuda {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;
using std::uint8_t;

constexpr int kMaxRadius = 4096;

// A word of a batch: which case, row and place in the row.
struct Word {
    int64_t number, image;
    int y, j;

    __device__ Word(const BitImages& images, int64_t which) : number(which) {
        const int stride = images.stride();
        const int64_t row = number / stride;
        j = static_cast<int>(number - row * stride);
        image = row / images.height;
        y = static_cast<int>(row - image * images.height);
    }
    __device__ uint32_t pixels(const BitImages& images) const {
        const int width = images.width - j * kWarp;
        return width >= kWarp ? ~0u : (1u << width) - 1u;
    }
};

// A warp makes a word.
__global__ void __launch_bounds__(kThreads) pack_kernel(const uint8_t* levels, const int* thresholds, BitImages to) {
    const int64_t number = thread_number() / kWarp;
    if (number >= to.count()) return;
    const Word word(to, number);
    const int x = word.j * kWarp + static_cast<int>(threadIdx.x % kWarp);
    const uint8_t* row = levels + (word.image * to.height + word.y) * to.width;
    const uint32_t bits = __ballot_sync(kAllLanes, x < to.width && row[x] > thresholds[word.image]);
    if (threadIdx.x % kWarp == 0) to.words[number] = bits;
}

// A row of an image, or of its complement.
struct Row {
    const uint32_t* words;
    int width, stride;
    uint32_t flip;

    __device__ uint32_t at(int j) const {
        if (j < 0 || j >= stride) return 0;
        const int pixels = width - j * kWarp;
        return (words[j] ^ flip) & (pixels >= kWarp ? ~0u : (1u << pixels) - 1u);
    }

    // Word j of the row widened by `by` pixels to both sides.
    __device__ uint32_t widened(int j, int by) const { return by < kWarp ? near(j, by) : far(j, by); }

private:
    // By less than a word, in a logarithmic number of shifts of the word and one neighbour.
    __device__ uint32_t near(int j, int by) const {
        const uint64_t here = at(j);
        uint64_t up = here << kWarp | at(j - 1), down = static_cast<uint64_t>(at(j + 1)) << kWarp | here;
        for (int covered = 0; covered < by;) {
            const int step = min(covered + 1, by - covered);
            up |= up << step;
            down |= down >> step;
            covered += step;
        }
        return static_cast<uint32_t>(up >> kWarp) | static_cast<uint32_t>(down);
    }

    // By words and `rest` pixels: whole words reach every pixel, beyond them the nearest bit on either side counts.
    __device__ uint32_t far(int j, int by) const {
        const int words_across = by / kWarp, rest = by % kWarp;
        for (int i = max(j - words_across + 1, 0); i < min(j + words_across, stride); ++i)
            if (at(i) != 0) return ~0u;
        const uint64_t left = static_cast<uint64_t>(at(j - words_across)) << kWarp | at(j - words_across - 1);
        const uint64_t right = static_cast<uint64_t>(at(j + words_across + 1)) << kWarp | at(j + words_across);
        uint32_t made = 0;
        const int reached = left == 0 ? -1 : kWarp - 1 - __clzll(static_cast<long long>(left)) + rest;
        if (reached >= 0) made = reached >= kWarp - 1 ? ~0u : (1u << (reached + 1)) - 1u;
        const int from = right == 0 ? kWarp : max(__ffsll(static_cast<long long>(right)) - 1 - rest, 0);
        return from < kWarp ? made | ~0u << from : made;
    }
};

// Dilates, or dilates the complement and complements the result, which is erosion: the element is symmetric.
__global__ void __launch_bounds__(kThreads) dilate_kernel(BitImages from, uint32_t* to, int radius, uint32_t flip) {
    __shared__ uint16_t half_widths[kMaxRadius + 1];
    const int rows = min(radius, from.height - 1);
    // As kernels/mask_extraction/ellipse.py computes them.
    const double inverse = radius > 0 ? 1.0 / (radius * radius) : 0.0;
    for (int y = threadIdx.x; y <= rows; y += kThreads)
        half_widths[y] = static_cast<uint16_t>(rint(radius * sqrt((radius * radius - y * y) * inverse)));
    __syncthreads();
    const int64_t number = thread_number();
    if (number >= from.count()) return;
    const Word word(from, number);
    const int stride = from.stride();
    const uint32_t* image = from.words + word.image * from.words_of_case();
    uint32_t made = 0;
    for (int y = max(word.y - rows, 0); y <= min(word.y + rows, from.height - 1) && made != ~0u; ++y) {
        const Row row{image + int64_t{y} * stride, from.width, stride, flip};
        made |= row.widened(word.j, half_widths[abs(y - word.y)]);
    }
    to[number] = (made ^ flip) & word.pixels(from);
}

}  // namespace

void pack(Stream& stream, const uint8_t* levels, const int* thresholds, BitImages to) {
    stream.launch(blocks_for(to.count() * kWarp), pack_kernel, levels, thresholds, to);
}

void close(Stream& stream, BitImages images, BitImages scratch, int diameter) {
    const int64_t blocks = blocks_for(images.count());
    stream.launch(blocks, dilate_kernel, images, scratch.words, diameter / 2, 0u);
    stream.launch(blocks, dilate_kernel, scratch, images.words, diameter / 2, ~0u);
}

}  // namespace lesionforge::cuda
