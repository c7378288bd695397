// The kernels of attention.hpp on AMX tiles. float32 numbers go in as two bfloat16 parts, whose products leave out less
// than 2^-16 of each; where the scores may be large, as three, which leave out less than 2^-24. bfloat16 numbers go in
// as they are. Sums are float32; for the gradients, exponentials go in as two parts for float32, as one for bfloat16.
#include <cstdint>
#include <cstring>
#include <limits>

#include "attention_amx_mean.inl"
#include "attention_amx_ranges.inl"
#include "attention_scaling.inl"

namespace lesionforge {
namespace {

constexpr float kBound = 32.0f;  // of the scores, as powers of two: two parts do, no maximum is needed

// Whether by Cauchy and Schwarz no score of any head exceeds the bound; no for NaN.
bool bounded(const void* query, const void* key, bool bfloat16, int64_t planes, int64_t tokens, int64_t depth,
             float scale, int threads) {
    const Scratch scratch(planes * 2 * 4);
    float* const squares = scratch.as<float>();
#pragma omp parallel for schedule(static) num_threads(static_cast<int>(least(threads, planes)))
    for (int64_t i = 0; i < 2 * planes; ++i) {
        const int64_t plane = i / 2 * tokens * depth * (bfloat16 ? 2 : 4);
        const auto* const from = static_cast<const char*>(i % 2 == 0 ? query : key) + plane;
        squares[i] = largest_square(from, bfloat16, tokens, depth);
    }
    const float limit = kBound / kLog2E;
    bool all = true;
    for (int64_t i = 0; i < planes; ++i)
        all = all && squares[2 * i] * squares[2 * i + 1] * scale * scale <= limit * limit;
    return all;
}

void mean(const MeanAttention& a) {
    const bool small = bounded(a.query, a.key, a.bfloat16, a.heads, a.tokens, a.depth, a.scale, a.threads);
    if (a.bfloat16)
        mean_attention<1>(a, small);
    else if (small)
        mean_attention<2>(a, true);
    else
        mean_attention<3>(a, false);
}

void leakage(const Leakage& a) {
    const bool small =
        bounded(a.query, a.key, a.bfloat16, a.cases * a.heads, a.tokens, a.depth, a.scale, a.threads);
    if (a.bfloat16)
        leakage<1, 1>(a, small);
    else if (small)
        leakage<2, 2>(a, true);
    else
        leakage<3, 2>(a, false);
}

}  // namespace

const AttentionKernels kAttentionAmx{"amx", true, mean, leakage, scale_gradients};

}  // namespace lesionforge
