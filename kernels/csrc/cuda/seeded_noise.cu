// Counter-based noise of seeded cases; the definition of every number is kernels/seeded_noise/reference.py.
#include "../philox.hpp"
#include "stream.cuh"

namespace lesionforge::cuda {
namespace {

using std::int64_t;
using std::uint32_t;
using std::uint64_t;

constexpr int kWords = 4;  // words of a block, and numbers made of it

struct Normals {
    __device__ static float4 of(const Words& words) {
        float4 z;
        box_muller(words.w0, words.w1, z.x, z.y);
        box_muller(words.w2, words.w3, z.z, z.w);
        return z;
    }
};

struct Uniforms {
    __device__ static float4 of(const Words& words) {
        return {unit_interval(words.w0), unit_interval(words.w1), unit_interval(words.w2), unit_interval(words.w3)};
    }
};

// A thread makes one block of Philox and the four numbers that come of it.
template <typename Numbers>
__global__ void __launch_bounds__(kThreads)
    fill(const uint64_t* seeds, float* out, int64_t cases, int64_t count, uint32_t step, uint32_t stream) {
    const int64_t blocks = (count + kWords - 1) / kWords, thread = thread_number();
    if (thread >= cases * blocks) return;
    const int64_t row = thread / blocks, block = thread % blocks;
    const uint64_t seed = seeds[row];
    const Words words = philox({static_cast<uint32_t>(block), step, stream, 0}, static_cast<uint32_t>(seed),
                               static_cast<uint32_t>(seed >> 32));
    const float4 numbers = Numbers::of(words);
    float* place = out + row * count + block * kWords;
    if (count % kWords == 0) {
        *reinterpret_cast<float4*>(place) = numbers;
    } else {
        const int64_t left = count - block * kWords;
        place[0] = numbers.x;
        if (left > 1) place[1] = numbers.y;
        if (left > 2) place[2] = numbers.z;
        if (left > 3) place[3] = numbers.w;
    }
}

__global__ void __launch_bounds__(kThreads)
    philox_rows(const int64_t* key, const int64_t* counter, int64_t* out, int64_t rows) {
    const int64_t row = thread_number();
    if (row >= rows) return;
    const auto word = [&](int j) { return static_cast<uint32_t>(counter[row * kWords + j]); };
    const Words words = philox({word(0), word(1), word(2), word(3)}, static_cast<uint32_t>(key[row * 2]),
                               static_cast<uint32_t>(key[row * 2 + 1]));
    out[row * kWords] = words.w0;
    out[row * kWords + 1] = words.w1;
    out[row * kWords + 2] = words.w2;
    out[row * kWords + 3] = words.w3;
}

template <typename Numbers>
int filled(const uint64_t* seeds, float* out, int64_t cases, int64_t count, uint32_t step, uint32_t stream, int device,
           cudaStream_t on) {
    Stream queue(device, on);
    queue.launch(blocks_for(cases * ((count + kWords - 1) / kWords)), fill<Numbers>, seeds, out, cases, count, step,
                 stream);
    return queue.error();
}

}  // namespace
}  // namespace lesionforge::cuda

// out[i] = Philox4x32-10(key[i], counter[i]) for rows of 2, 4 and 4 words, each word an int64 below 2^32.
LESIONFORGE_EXPORT int philox_u32(const std::int64_t* key, const std::int64_t* counter, std::int64_t* out,
                                  std::int64_t rows, int device, cudaStream_t on) {
    lesionforge::cuda::Stream queue(device, on);
    queue.launch(lesionforge::cuda::blocks_for(rows), lesionforge::cuda::philox_rows, key, counter, out, rows);
    return queue.error();
}

// Row i of out (cases x count) follows from seeds[i], step and stream alone.
LESIONFORGE_EXPORT int seeded_normal(const std::uint64_t* seeds, float* out, std::int64_t cases, std::int64_t count,
                                     std::uint32_t step, std::uint32_t stream, int device, cudaStream_t on) {
    return lesionforge::cuda::filled<lesionforge::cuda::Normals>(seeds, out, cases, count, step, stream, device, on);
}

LESIONFORGE_EXPORT int seeded_uniform(const std::uint64_t* seeds, float* out, std::int64_t cases, std::int64_t count,
                                      std::uint32_t step, std::uint32_t stream, int device, cudaStream_t on) {
    return lesionforge::cuda::filled<lesionforge::cuda::Uniforms>(seeds, out, cases, count, step, stream, device, on);
}
