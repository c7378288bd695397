// Mean attention: scores, softmax and mean over the heads of a block of rows stay in the cache.
#include "attention.hpp"
#include "attention_vectors.inl"

namespace lesionforge {
namespace {

struct MeanScratch {
    float *query, *scores, *mean, *values;
};

void mean_block(const MeanAttention& a, const Shape& shape, const float* panels, int64_t first, MeanScratch s) {
    const int64_t rows = least(kRows, shape.tokens - first);
    for (int64_t head = 0; head < a.heads; ++head) {
        pack_rows(floats(a.query) + (head * shape.tokens + first) * shape.depth, rows, shape, s.query);
        score_rows(s.query, rows, panels + head * shape.packed(), shape, s.scores);
        for (int64_t i = 0; i < rows; ++i) {
            float* row = s.scores + i * shape.keys;
            const float sum = exponentiate(row, shape.keys);
            accumulate(s.mean + i * shape.keys, row, 1.0f / (sum * static_cast<float>(a.heads)), shape.tokens,
                       head == 0);
        }
    }
    for (int64_t i = 0; i < rows; ++i) {
        const float* mean = s.mean + i * shape.keys;
        if (a.map != nullptr)
            std::memcpy(a.map + (first + i) * shape.tokens, mean, static_cast<std::size_t>(shape.tokens) * 4);
        for (int64_t c = 0; a.values != nullptr && c < a.columns; ++c)
            a.out[(first + i) * a.columns + c] = dot(mean, s.values + c * shape.keys, shape.keys);
    }
}

void mean_attention(const MeanAttention& a) {
    const Shape shape(a.tokens, a.depth);
    const int64_t blocks = (a.tokens + kRows - 1) / kRows;
    const int team = static_cast<int>(least(a.threads, blocks));
    const int64_t columns = a.values != nullptr ? a.columns : 0;
    const int64_t each = round_up(kRows * shape.width + 2 * kRows * shape.keys, 64);
    const Zeros panels(a.heads * shape.packed()), values(columns * shape.keys), scratch(team * each);
    for (int64_t c = 0; c < columns; ++c)
        std::memcpy(values.get() + c * shape.keys, a.values + c * a.tokens, static_cast<std::size_t>(a.tokens) * 4);
#pragma omp parallel num_threads(team)
    {
#pragma omp for schedule(static)
        for (int64_t head = 0; head < a.heads; ++head)
            pack_panels(floats(a.key) + head * a.tokens * a.depth, shape, a.scale * kLog2E,
                        panels.get() + head * shape.packed());
#pragma omp for schedule(static)
        for (int worker = 0; worker < team; ++worker) {
            float* const own = scratch.get() + worker * each;
            float* const scores = own + kRows * shape.width;
            const MeanScratch s{own, scores, scores + kRows * shape.keys, values.get()};
            for (int64_t block = blocks * worker / team; block < blocks * (worker + 1) / team; ++block)
                mean_block(a, shape, panels.get(), block * kRows, s);
        }
    }
}

}  // namespace
}  // namespace lesionforge
