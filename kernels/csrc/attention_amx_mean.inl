// Mean attention on tiles: sums of exponentials of a slab of rows first, then, head by head, its part of the mean map.
#include <sys/mman.h>

#include "attention.hpp"
#include "attention_amx_tiles.inl"

namespace lesionforge {
namespace {

constexpr int64_t kBlocksAtOnce = 2;     // whose queries and the keys stay in the first cache
constexpr int64_t kSlabBytes = 1 << 19;  // of packed queries
constexpr int64_t kCacheFloats = 1 << 21;
constexpr int kColumnsAtOnce = 4;

struct MeanPlan {
    int64_t groups, steps, size;  // groups of keys, steps of channels, numbers of an operand
    int64_t blocks;               // of 32 rows, in a slab
    float factor;                 // on the scores, for powers of two
    bool bounded;                 // no exponential can overflow
    bool past_caches;             // the map is larger than they are
};

// 32 vectors of a head's plane.
Vectors plane_of(const MeanAttention& a, const void* from, int64_t head, int64_t first) {
    const char* const plane = static_cast<const char*>(from) + head * a.tokens * a.depth * (a.bfloat16 ? 2 : 4);
    return {plane, a.bfloat16, a.depth, first, least(kGroup, a.tokens - first), nullptr};
}

// Scratch of one worker, for a slab; [head][block][32] where nothing else is said.
struct MeanScratch {
    uint16_t* queries;  // [head][block] right operands
    float *offset, *inverse;
    float* sums;     // [block][1 + columns][32]
    float* mean;     // [tile][key][row] of kTiles x 32 x 32
    float* product;  // [block][column][32]
};

// Where a head's exponentials are taken from, and 1 / (their sum x heads); adds its part of the columns of A values^T.
template <int kParts, int kColumns>
void sum_head(const MeanAttention& a, const MeanPlan& plan, const uint16_t* keys, Queries q, int64_t column,
              float* offset, float* inverse, const MeanScratch& s) {
    std::memset(s.sums, 0, static_cast<std::size_t>(q.blocks * (1 + kColumns) * kGroup) * 4);
    const float* values = kColumns > 0 ? a.values + column * a.tokens : nullptr;
    const int64_t blocks = q.blocks, size = plan.size;
    for (int64_t block = 0; block < blocks; block += kBlocksAtOnce, q.packed += kBlocksAtOnce * size) {
        q.blocks = least(kBlocksAtOnce, blocks - block);
        q.offset = offset + block * kGroup;
        if (!plan.bounded && column == 0) {
            fill(offset + block * kGroup, q.blocks * kGroup, -std::numeric_limits<float>::infinity());
            raise_maxima<kParts>(keys, 0, a.tokens, q, offset + block * kGroup);
            for (int64_t i = block * kGroup; i < (block + q.blocks) * kGroup; ++i) offset[i] = 0.5f - offset[i];
        }
        sum_exponentials<kParts, kColumns>(keys, 0, a.tokens, q, values, a.tokens,
                                           s.sums + block * (1 + kColumns) * kGroup);
    }
    for (int64_t i = 0; i < blocks * kGroup; ++i) {
        const float* sum = s.sums + i / kGroup * (1 + kColumns) * kGroup + i % kGroup;
        inverse[i] = 1.0f / (*sum * static_cast<float>(a.heads));
        float* const product = s.product + (i / kGroup * a.columns + column) * kGroup + i % kGroup;
        for (int c = 0; c < kColumns; ++c) product[c * kGroup] += sum[(1 + c) * kGroup] * inverse[i];
    }
}

template <int kParts>
void sum_columns(const MeanAttention& a, const MeanPlan& plan, const uint16_t* keys, const Queries& q, float* offset,
                 float* inverse, const MeanScratch& s) {
    if (a.map != nullptr) return sum_head<kParts, 0>(a, plan, keys, q, 0, offset, inverse, s);
    int64_t column = 0;
    for (; column + kColumnsAtOnce <= a.columns; column += kColumnsAtOnce)
        sum_head<kParts, kColumnsAtOnce>(a, plan, keys, q, column, offset, inverse, s);
    for (; column < a.columns; ++column) sum_head<kParts, 1>(a, plan, keys, q, column, offset, inverse, s);
}

// Writes one group of keys of a block's mean, and adds its part of A values^T.
void finish_tile(const MeanAttention& a, bool past_caches, int64_t row, int64_t key, const float* mean,
                 float* product) {
    const int64_t live = least(kGroup, a.tokens - key);
    for (int64_t c = 0; a.values != nullptr && c < a.columns; ++c)
        for (int half = 0; half < 2; ++half) {
            float* const to = product + c * kGroup + half * 16;
            __m512 sum = _mm512_setzero_ps();
            for (int64_t k = 0; k < live; ++k)
                sum = _mm512_fmadd_ps(_mm512_load_ps(mean + k * kGroup + half * 16),
                                      _mm512_set1_ps(a.values[c * a.tokens + key + k]), sum);
            _mm512_store_ps(to, _mm512_add_ps(_mm512_load_ps(to), sum));
        }
    for (int64_t i = 0; i < kGroup; i += 16)
        for (int64_t j = 0; j < live; j += 16) {
            __m512i r[16];
            for (int k = 0; k < 16; ++k) r[k] = _mm512_load_si512(mean + (j + k) * kGroup + i);
            transpose(r);
            float* to = a.map + (row + i) * a.tokens + key + j;
            for (int k = 0; k < 16 && row + i + k < a.tokens; ++k, to += a.tokens) {
                if (past_caches)
                    _mm512_stream_si512(reinterpret_cast<__m512i*>(to), r[k]);
                else
                    _mm512_mask_storeu_epi32(to, lanes(live - j), r[k]);
            }
        }
}

// The map's rows of a slab, by tiles of 2 x 2 groups whose operands stay in the cache.
template <int kParts>
void map_slab(const MeanAttention& a, const MeanPlan& plan, const uint16_t* keys, int64_t row, int64_t blocks,
              const MeanScratch& s) {
    alignas(64) float scores[kScores];
    const __m512 factor = _mm512_set1_ps(plan.factor);
    const auto add = [&](int64_t group, int64_t block, int64_t head, float* mean) {
        const int64_t at = head * plan.blocks + block;
        multiply<kParts>(keys + (head * plan.groups + group) * plan.size, s.queries + at * plan.size, plan.steps,
                         scores);
        const float *offset = s.offset + at * kGroup, *inverse = s.inverse + at * kGroup;
        for (int64_t i = 0; i < kScores; i += 16) {
            const __m512 p = exponential(scores + i, factor, offset + i % kGroup);
            const __m512 share = _mm512_load_ps(inverse + i % kGroup);
            _mm512_store_ps(mean + i, head == 0 ? _mm512_mul_ps(p, share)
                                                : _mm512_fmadd_ps(p, share, _mm512_load_ps(mean + i)));
        }
    };
    for (int64_t group = 0; group < plan.groups; group += 2)
        for (int64_t block = 0; block < blocks; block += 2) {
            const int64_t right = least(2, plan.groups - group), down = least(2, blocks - block);
            for (int64_t head = 0; head < a.heads; ++head)
                for (int64_t i = 0; i < right; ++i)
                    for (int64_t j = 0; j < down; ++j) add(group + i, block + j, head, s.mean + (i * 2 + j) * kScores);
            for (int64_t j = 0; j < down; ++j)
                for (int64_t i = 0; i < right; ++i)
                    finish_tile(a, plan.past_caches, row + (block + j) * kGroup, (group + i) * kGroup,
                                s.mean + (i * 2 + j) * kScores, s.product + (block + j) * a.columns * kGroup);
        }
}

template <int kParts>
void mean_slab(const MeanAttention& a, const MeanPlan& plan, const uint16_t* keys, int64_t row,
               const MeanScratch& s) {
    const int64_t rows = least(plan.blocks * kGroup, a.tokens - row), blocks = (rows + kGroup - 1) / kGroup;
    if (a.values != nullptr) std::memset(s.product, 0, static_cast<std::size_t>(blocks * a.columns * kGroup) * 4);
    for (int64_t head = 0; head < a.heads; ++head) {
        uint16_t* const queries = s.queries + head * plan.blocks * plan.size;
        for (int64_t block = 0; block < blocks; ++block)
            pack_right<kParts>(plane_of(a, a.query, head, row + block * kGroup), plan.steps,
                               queries + block * plan.size);
        written();
        const int64_t at = head * plan.blocks * kGroup;
        fill(s.offset + at, blocks * kGroup, 0.5f);
        sum_columns<kParts>(a, plan, keys + head * plan.groups * plan.size,
                            {queries, blocks, plan.steps, plan.factor, nullptr}, s.offset + at, s.inverse + at, s);
    }
    if (a.map != nullptr) map_slab<kParts>(a, plan, keys, row, blocks, s);
    for (int64_t i = 0; a.values != nullptr && i < rows; ++i)
        for (int64_t c = 0; c < a.columns; ++c)
            a.out[(row + i) * a.columns + c] = s.product[(i / kGroup * a.columns + c) * kGroup + i % kGroup];
}

template <int kParts>
MeanPlan mean_plan(const MeanAttention& a, bool bounded) {
    MeanPlan plan;
    plan.groups = (a.tokens + kGroup - 1) / kGroup;
    plan.steps = (a.depth + 31) / 32;
    plan.size = operand_size<kParts>(plan.steps);
    const int64_t fitting = kSlabBytes / (a.heads * plan.size * 2), fair = (plan.groups + a.threads - 1) / a.threads;
    plan.blocks = fitting < 2 ? 2 : least(fitting, least(8, fair));
    plan.factor = a.scale * kLog2E;
    plan.bounded = bounded;
    plan.past_caches = a.tokens * a.tokens > kCacheFloats && a.tokens % 16 == 0 &&
                       reinterpret_cast<std::uintptr_t>(a.map) % 64 == 0;
    return plan;
}

// Fresh memory comes in large pages, since faults by the small page take as long as the map.
void advise_large_pages(const MeanAttention& a) {
    constexpr std::uintptr_t kPage = 4096;
    const auto begin = (reinterpret_cast<std::uintptr_t>(a.map) + kPage - 1) / kPage * kPage;
    const auto end = reinterpret_cast<std::uintptr_t>(a.map + a.tokens * a.tokens) / kPage * kPage;
    if (begin < end) madvise(reinterpret_cast<void*>(begin), end - begin, MADV_HUGEPAGE);
}

template <int kParts>
void mean_attention(const MeanAttention& a, bool bounded) {
    const MeanPlan plan = mean_plan<kParts>(a, bounded);
    if (plan.past_caches) advise_large_pages(a);
    const int64_t slabs = (plan.groups + plan.blocks - 1) / plan.blocks;
    const int team = static_cast<int>(least(a.threads, slabs));
    const int64_t at_once = a.heads * plan.blocks, columns = a.values != nullptr ? a.columns : 0;
    const int64_t floats = 4 * kScores + (2 * at_once + plan.blocks * (1 + kColumnsAtOnce + columns)) * kGroup;
    const int64_t each = round_up(at_once * plan.size * 2 + floats * 4, 64);
    const Scratch packed(a.heads * plan.groups * plan.size * 2), scratch(team * each);
    uint16_t* const keys = packed.as<uint16_t>();
#pragma omp parallel num_threads(team)
    {
#pragma omp for schedule(static)
        for (int64_t i = 0; i < a.heads * plan.groups; ++i)
            pack_left<kParts>(plane_of(a, a.key, i / plan.groups, i % plan.groups * kGroup), plan.steps,
                              keys + i * plan.size);
#pragma omp for schedule(static)
        for (int worker = 0; worker < team; ++worker) {
            const Tiles tiles;
            MeanScratch s;
            s.queries = reinterpret_cast<uint16_t*>(scratch.as<char>() + worker * each);
            s.mean = reinterpret_cast<float*>(s.queries + at_once * plan.size);
            s.offset = s.mean + 4 * kScores;
            s.inverse = s.offset + at_once * kGroup;
            s.sums = s.inverse + at_once * kGroup;
            s.product = s.sums + plan.blocks * (1 + kColumnsAtOnce) * kGroup;
            for (int64_t slab = slabs * worker / team; slab < slabs * (worker + 1) / team; ++slab)
                mean_slab<kParts>(a, plan, keys, slab * plan.blocks * kGroup, s);
            _mm_sfence();
        }
    }
}

}  // namespace
}  // namespace lesionforge
