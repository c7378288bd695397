// Counter-based noise of seeded cases; the definition of every number is kernels/seeded_noise/reference.py.
#pragma once

#include <cstdint>

namespace lesionforge {

// out[i] = Philox4x32-10(key[i], counter[i]) for n rows of 2, 4 and 4 words, each word an int64 below 2^32.
void philox_u32(const std::int64_t* key, const std::int64_t* counter, std::int64_t* out, std::int64_t n, int threads);

// Row i of out (cases x count) follows from seeds[i], step and stream alone.
void seeded_normal(const std::uint64_t* seeds, float* out, std::int64_t cases, std::int64_t count,
                   std::uint32_t step, std::uint32_t stream, int threads);
void seeded_uniform(const std::uint64_t* seeds, float* out, std::int64_t cases, std::int64_t count,
                    std::uint32_t step, std::uint32_t stream, int threads);

}  // namespace lesionforge
