// Connected components by union-find over the runs of words: each run first hangs on a neighbour before it, trees are
// flattened, and what still touches is joined root by root. A root is always hung below a smaller number, so the root
// of a component is its first run whatever the order of threads (Playne and Hawick, "A new algorithm for parallel
// connected-component labelling on GPUs", IEEE TPDS 29(6), 2018, there for pixels).
#include <initializer_list>

#include "bit_images.cuh"

namespace lesionforge::cuda {
namespace {

using std::int64_t;
using std::uint32_t;

// Runs of one word, numbered from `first` in the order of their pixels.
struct Runs {
    uint32_t bits, first;

    __device__ uint32_t starts() const { return bits & ~(bits << 1); }
    __device__ uint32_t count() const { return static_cast<uint32_t>(__popc(starts())); }
    __device__ uint32_t last() const { return first + count() - 1; }
    // The run that holds pixel `bit`.
    __device__ uint32_t holding(int bit) const {
        return first + static_cast<uint32_t>(__popc(starts() & ((2u << bit) - 1u))) - 1;
    }
    // The pixels of the first run in `left`.
    __device__ static uint32_t next(uint32_t left) {
        const int begin = __ffs(static_cast<int>(left)) - 1;
        const uint32_t ended = ~(left >> begin);
        const int length = ended == 0 ? kWarp : __ffs(static_cast<int>(ended)) - 1;
        return (length == kWarp ? ~0u : (1u << length) - 1u) << begin;
    }
};

// The image that a thread's word belongs to, and the forest of that image.
struct Forest {
    const uint32_t* words;
    uint32_t *parents, *areas;
    int64_t image;
    int y, j, stride;

    __device__ Forest(const BitImages& images, const Components& components, int64_t number) : stride(images.stride()) {
        image = number / images.words_of_case();
        const int64_t first = image * images.words_of_case();
        y = static_cast<int>((number - first) / stride);
        j = static_cast<int>((number - first) % stride);
        words = images.words + first;
        parents = components.parents + first * kRunsOfWord;
        areas = components.areas + first * kRunsOfWord;
    }

    // Runs of the word `down` rows below and `right` words beside; none outside the image.
    __device__ Runs runs(int down, int right) const {
        if (y + down < 0 || j + right < 0 || j + right >= stride) return {0, 0};
        const auto word = static_cast<uint32_t>((y + down) * stride + j + right);
        return {words[word], word * kRunsOfWord};
    }

    // Loads and stores pass over the first-level cache, where parents would grow stale.
    __device__ uint32_t root(uint32_t run) const {
        for (uint32_t parent; (parent = __ldcg(parents + run)) != run;) run = parent;
        return run;
    }

    // Pointer jumping: every thread shortens its own runs' way, and so that of all who come by.
    __device__ uint32_t flatten(uint32_t run) const {
        uint32_t parent = __ldcg(parents + run);
        for (uint32_t next; (next = __ldcg(parents + parent)) != parent; parent = next) __stcg(parents + run, next);
        return parent;
    }

    __device__ void join(uint32_t a, uint32_t b) const {
        for (;;) {
            a = root(a);
            b = root(b);
            if (a == b) return;
            const uint32_t low = min(a, b), high = max(a, b);
            const uint32_t before = atomicMin(parents + high, low);
            if (before == high) return;
            // Another thread was faster: `high` is no root any more, what it hangs on must be joined instead.
            a = before;
            b = low;
        }
    }
};

// Every thread of these kernels has one word.
__global__ void __launch_bounds__(kThreads) plant_kernel(BitImages images, Components components) {
    if (thread_number() >= images.count()) return;
    const Forest forest(images, components, thread_number());
    const Runs here = forest.runs(0, 0), before = forest.runs(0, -1), above = forest.runs(-1, 0);
    uint32_t run = here.first;
    for (uint32_t left = here.bits; left != 0; ++run) {
        const uint32_t pixels = Runs::next(left), touching = above.bits & (pixels | pixels << 1 | pixels >> 1);
        left &= ~pixels;
        uint32_t parent = run;
        if ((pixels & 1u) != 0 && before.bits >> (kWarp - 1) != 0) {
            parent = before.last();
        } else if (touching != 0) {
            parent = above.holding(__ffs(static_cast<int>(touching)) - 1);
        }
        forest.parents[run] = parent;
        forest.areas[run] = 0;
    }
}

__global__ void __launch_bounds__(kThreads) flatten_kernel(BitImages images, Components components) {
    if (thread_number() >= images.count()) return;
    const Forest forest(images, components, thread_number());
    const Runs here = forest.runs(0, 0);
    for (uint32_t i = 0; i < here.count(); ++i) forest.flatten(here.first + i);
}

__global__ void __launch_bounds__(kThreads) join_kernel(BitImages images, Components components) {
    if (thread_number() >= images.count()) return;
    const Forest forest(images, components, thread_number());
    const Runs here = forest.runs(0, 0), before = forest.runs(0, -1), above = forest.runs(-1, 0);
    const Runs left_above = forest.runs(-1, -1), right_above = forest.runs(-1, 1);
    uint32_t run = here.first;
    for (uint32_t left = here.bits; left != 0; ++run) {
        const uint32_t pixels = Runs::next(left);
        left &= ~pixels;
        const bool at_left = (pixels & 1u) != 0, at_right = pixels >> (kWarp - 1) != 0;
        if (at_left && before.bits >> (kWarp - 1) != 0) forest.join(run, before.last());
        if (at_left && left_above.bits >> (kWarp - 1) != 0) forest.join(run, left_above.last());
        if (at_right && (right_above.bits & 1u) != 0) forest.join(run, right_above.first);
        for (uint32_t touching = above.bits & (pixels | pixels << 1 | pixels >> 1); touching != 0;) {
            const int bit = __ffs(static_cast<int>(touching)) - 1;
            forest.join(run, above.holding(bit));
            // Further pixels of the same run above tell nothing new.
            touching &= ~Runs::next(above.bits & ~0u << bit);
        }
    }
}

__global__ void __launch_bounds__(kThreads) measure_kernel(BitImages images, Components components) {
    if (thread_number() >= images.count()) return;
    const Forest forest(images, components, thread_number());
    const Runs here = forest.runs(0, 0);
    uint32_t run = here.first;
    for (uint32_t left = here.bits; left != 0; ++run) {
        const uint32_t pixels = Runs::next(left);
        left &= ~pixels;
        const uint32_t root = forest.flatten(run);
        atomicAdd(forest.areas + root, static_cast<uint32_t>(__popc(pixels)));
    }
}

// The greatest key is the greatest area, and of equal ones the smallest number.
__global__ void __launch_bounds__(kThreads) choose_kernel(BitImages images, Components components) {
    if (thread_number() >= images.count()) return;
    const Forest forest(images, components, thread_number());
    const Runs here = forest.runs(0, 0);
    for (uint32_t run = here.first; run < here.first + here.count(); ++run) {
        if (forest.parents[run] != run) continue;
        atomicMax(components.largest + forest.image, static_cast<unsigned long long>(forest.areas[run]) << 32 | ~run);
    }
}

// A thread per pixel of the padded rows, so that a warp has one word.
__global__ void __launch_bounds__(kThreads)
    unpack_kernel(BitImages images, Components components, bool largest_only, float* out) {
    const int64_t number = thread_number() / kWarp;
    if (number >= images.count()) return;
    const int lane = static_cast<int>(threadIdx.x % kWarp);
    const Forest forest(images, components, number);
    const Runs here = forest.runs(0, 0);
    const int x = forest.j * kWarp + lane;
    if (x >= images.width) return;
    bool kept = (here.bits >> lane & 1u) != 0;
    if (kept && largest_only)
        kept = forest.parents[here.holding(lane)] == ~static_cast<uint32_t>(components.largest[forest.image]);
    out[(forest.image * images.height + forest.y) * images.width + x] = kept ? 1.0f : 0.0f;
}

}  // namespace

void find_largest(Stream& stream, BitImages images, Components components) {
    for (const auto kernel : {plant_kernel, flatten_kernel, join_kernel, measure_kernel, choose_kernel})
        stream.launch(blocks_for(images.count()), kernel, images, components);
}

void unpack(Stream& stream, BitImages images, Components components, bool largest_only, float* out) {
    stream.launch(blocks_for(images.count() * kWarp), unpack_kernel, images, components, largest_only, out);
}

}  // namespace lesionforge::cuda
