// Leakage on tiles. Keys are put in two regions, those that the rows do not leak to (0) and those that they do (1), so
// that u = sum_1 p / sum p and, with exponentials p as they come and weights w of their row,
//     dQ = sum over regions r of w_r sum_q p[q] K[q],    dK[q in r] = sum over rows of p[q] (w_r Q),
//     w_0 = -u w, w_1 = (1 - u) w, w = scale / (heads sum p):
// nothing is done to a single score but the exponential and its rounding to bfloat16 parts.
#include "attention.hpp"
#include "attention_amx_tiles.inl"

namespace lesionforge {
namespace {

constexpr int64_t kSlab = 16;      // blocks of 32 rows that go over all keys together
constexpr int64_t kKeyGroups = 4;  // groups of keys whose exponentials stay in the cache
constexpr int64_t kPair = 2;       // blocks of rows, likewise

// The keys of a head by region, each padded to whole groups.
struct Regions {
    int64_t* order;  // token at each place; regions one after the other, each from a whole group on
    int64_t first[2], end[2], groups;
};

struct LeakagePlan {
    int64_t steps, width, size, step;  // steps of 32 channels, all of them, numbers of a score operand and of one step
    int64_t groups;                    // of keys, at most
    float factor;
    bool bounded;
};

struct LeakageScratch {
    Regions regions;
    uint16_t *keys, *channels;               // [group] left operands; [32 channels][group] left operands
    uint16_t *queries, *weighted;            // [block]; [block][region][32 channels] right operands
    uint16_t *by_key, *by_row;               // exponentials: [block][group] right, [group][block] left operands
    float *offset, *sums, *weights;          // [block][32]; [region][block][32]; [region][block][32]
    float *query_gradient, *key_gradient;    // [block][region][channel][row]; [place][width]
};

Regions regions_of(const Leakage& a, int64_t task, int64_t* order) {
    Regions r{order, {}, {}, 0};
    const float* const leaks = a.values + task * a.tokens;
    for (int region = 0; region < 2; ++region) {
        int64_t place = r.first[region] = r.groups * kGroup;
        for (int64_t token = 0; token < a.tokens; ++token)
            if ((leaks[token] != 0.0f) == (region == 1)) order[place++] = token;
        r.end[region] = place;
        r.groups = (place + kGroup - 1) / kGroup;
    }
    return r;
}

template <int kParts, int kGradient>
void enter_head(const Leakage& a, const LeakagePlan& plan, int64_t plane, const LeakageScratch& s) {
    const auto* const key = static_cast<const char*>(a.key) + plane * (a.bfloat16 ? 2 : 4);
    for (int region = 0; region < 2; ++region)
        for (int64_t place = s.regions.first[region]; place < s.regions.end[region]; place += kGroup) {
            const int64_t count = least(kGroup, s.regions.end[region] - place), group = place / kGroup;
            const Vectors v{key, a.bfloat16, a.depth, 0, count, s.regions.order + place};
            pack_left<kParts>(v, plan.steps, s.keys + group * plan.size);
            if (a.key_gradient != nullptr)
                pack_channels<kGradient>(v, plan.steps, plan.groups * plan.step, s.channels + group * plan.step);
        }
    if (a.key_gradient != nullptr)
        std::memset(s.key_gradient, 0, static_cast<std::size_t>(s.regions.groups * kGroup * plan.width) * 4);
}

LESIONFORGE_INLINE void store_channels(void* to, bool bfloat16, int64_t at, __mmask16 mask, __m512 x) {
    if (bfloat16)
        _mm256_mask_storeu_epi16(static_cast<uint16_t*>(to) + at, mask,
                                 reinterpret_cast<__m256i>(_mm512_cvtneps_pbh(x)));
    else
        _mm512_mask_storeu_ps(static_cast<float*>(to) + at, mask, x);
}

// Writes the gradient of the keys of a head, or adds it to what another worker wrote.
void leave_head(const Leakage& a, const LeakagePlan& plan, int64_t task, int64_t head, bool add,
                const Regions& regions, const float* gradient) {
    const int64_t plane = (task % a.tasks_per_case * a.cases + task / a.tasks_per_case) * a.heads + head;
    for (int region = 0; region < 2; ++region)
        for (int64_t place = regions.first[region]; place < regions.end[region]; ++place) {
            const int64_t token = plane * a.tokens + regions.order[place];
            const Vectors written{a.key_gradient, a.bfloat16, a.depth, token, 1, nullptr};
            for (int64_t c = 0; c < a.depth; c += 16) {
                __m512 sum = _mm512_load_ps(gradient + place * plan.width + c);
                if (add) sum = _mm512_add_ps(sum, load_channels(written, 0, c));
                store_channels(a.key_gradient, a.bfloat16, token * a.depth + c, lanes(a.depth - c), sum);
            }
        }
}

// Sums of exponentials of a slab's rows over each region; their offsets before.
template <int kParts>
void sum_regions(const LeakagePlan& plan, int64_t blocks, const LeakageScratch& s) {
    fill(s.offset, blocks * kGroup, 0.5f);
    fill(s.sums, 2 * kSlab * kGroup, 0.0f);
    for (int64_t block = 0; block < blocks; block += kPair) {
        const Queries q{s.queries + block * plan.size, least(kPair, blocks - block), plan.steps, plan.factor,
                        s.offset + block * kGroup};
        float* const offset = s.offset + block * kGroup;
        if (!plan.bounded) {
            fill(offset, q.blocks * kGroup, -std::numeric_limits<float>::infinity());
            for (int region = 0; region < 2; ++region)
                raise_maxima<kParts>(s.keys, s.regions.first[region], s.regions.end[region], q, offset);
            for (int64_t i = 0; i < q.blocks * kGroup; ++i) offset[i] = 0.5f - offset[i];
        }
        for (int region = 0; region < 2; ++region)
            sum_exponentials<kParts, 0>(s.keys, s.regions.first[region], s.regions.end[region], q, nullptr, 0,
                                        s.sums + (region * kSlab + block) * kGroup);
    }
}

// Right operand of a block's queries times the weights of their rows; pairs of rows are i and 16 + i.
template <int kGradient>
void pack_weighted(const Vectors& v, const float* weights, int64_t steps, uint16_t* out) {
    for (int64_t i = 0; i < 16; ++i)
        for (int64_t channel = 0; channel < steps * 32; channel += 16) {
            const __m512 low = _mm512_mul_ps(load_channels(v, i, channel), _mm512_set1_ps(weights[i]));
            const __m512 high = _mm512_mul_ps(load_channels(v, 16 + i, channel), _mm512_set1_ps(weights[16 + i]));
            __m512i parts[kGradient];
            interleave<kGradient>(low, high, parts);
            for (int part = 0; part < kGradient; ++part)
                _mm512_store_si512(out + ((channel / 32 * kGradient + part) * 2 + channel / 16 % 2) * kTile + i * 32,
                                   parts[part]);
        }
}

// Exponentials of a block of rows and a group of keys, as operands for both gradients.
template <int kParts, int kGradient>
void exponentiate(const LeakagePlan& plan, const uint16_t* keys, const uint16_t* query, const float* offset,
                  int64_t live, uint16_t* by_key, uint16_t* by_row) {
    alignas(64) float scores[kScores];
    const __m512 factor = _mm512_set1_ps(plan.factor);
    multiply<kParts>(keys, query, plan.steps, scores);
    const auto at = [&](int64_t key, int half) {
        const __m512 p = exponential(scores + key * kGroup + half * 16, factor, offset + half * 16);
        return key < live ? p : _mm512_setzero_ps();
    };
    for (int64_t j = 0; j < 16; ++j) {
        const __m512 p[2][2] = {{at(2 * j, 0), at(2 * j, 1)}, {at(2 * j + 1, 0), at(2 * j + 1, 1)}};
        __m512i parts[kGradient];
        for (int half = 0; half < 2; ++half) {
            interleave<kGradient>(p[0][half], p[1][half], parts);
            for (int part = 0; part < kGradient; ++part)
                _mm512_store_si512(by_key + (part * 2 + half) * kTile + j * 32, parts[part]);
        }
        for (int odd = 0; odd < 2; ++odd) {
            interleave<kGradient>(p[odd][0], p[odd][1], parts);
            for (int part = 0; part < kGradient; ++part)
                _mm512_store_si512(by_row + (part * 2 + j / 8) * kTile + (2 * j + odd) % 16 * 32, parts[part]);
        }
    }
}

// Adds what rows `block`, `block + 1` of a slab and groups of keys of one region give to both gradients.
template <int kParts, int kGradient>
void add_gradients(const LeakagePlan& plan, int region, int64_t group, int64_t groups, int64_t block, int64_t blocks,
                   const LeakageScratch& s) {
    for (int64_t g = 0; g < groups; ++g)
        for (int64_t b = 0; b < blocks; ++b)
            exponentiate<kParts, kGradient>(plan, s.keys + (group + g) * plan.size,
                                            s.queries + (block + b) * plan.size, s.offset + (block + b) * kGroup,
                                            s.regions.end[region] - (group + g) * kGroup,
                                            s.by_key + (b * kKeyGroups + g) * plan.step,
                                            s.by_row + (g * kPair + b) * plan.step);
    written();
    for (int64_t c = 0; c < plan.steps; ++c) {
        for (int64_t b = 0; b < blocks; ++b) {
            float* const to = s.query_gradient + (((block + b) * 2 + region) * plan.steps + c) * kScores;
            load_sums(to, kGroup);
            for (int64_t g = 0; g < groups; ++g)
                multiply_step<kGradient>(s.channels + (c * plan.groups + group + g) * plan.step,
                                         s.by_key + (b * kKeyGroups + g) * plan.step);
            store_sums(to, kGroup);
        }
        for (int64_t g = 0; g < groups; ++g) {
            float* const to = s.key_gradient + (group + g) * kGroup * plan.width + c * 32;
            load_sums(to, plan.width);
            for (int64_t b = 0; b < blocks; ++b)
                multiply_step<kGradient>(s.by_row + (g * kPair + b) * plan.step,
                                         s.weighted + (((block + b) * 2 + region) * plan.steps + c) * plan.step);
            store_sums(to, plan.width);
        }
    }
}

// Writes the gradient of a block's queries: both regions' sums, weighted.
void write_query_gradient(const Leakage& a, const LeakagePlan& plan, const int64_t* rows, int64_t count, int64_t plane,
                          int64_t block, const LeakageScratch& s) {
    for (int64_t channel = 0; channel < a.depth; channel += 16)
        for (int64_t half = 0; half * 16 < count; ++half) {
            const float* stay = s.query_gradient + block * 2 * plan.steps * kScores + channel * kGroup + half * 16;
            const float* leak = stay + plan.steps * kScores;
            const float* weights = s.weights + block * kGroup + half * 16;
            const __m512 weight[2] = {_mm512_load_ps(weights), _mm512_load_ps(weights + kSlab * kGroup)};
            __m512i r[16];
            for (int i = 0; i < 16; ++i) {
                const __m512 part = _mm512_mul_ps(weight[0], _mm512_load_ps(stay + i * kGroup));
                r[i] = _mm512_castps_si512(_mm512_fmadd_ps(weight[1], _mm512_load_ps(leak + i * kGroup), part));
            }
            transpose(r);
            for (int64_t i = 0; i < least(16, count - half * 16); ++i)
                store_channels(a.query_gradient, a.bfloat16, plane + rows[half * 16 + i] * a.depth + channel,
                               lanes(a.depth - channel), _mm512_castsi512_ps(r[i]));
        }
}

template <int kParts, int kGradient>
void gradient_slab(const Leakage& a, const LeakagePlan& plan, const int64_t* rows, int64_t count, int64_t plane,
                   const LeakageScratch& s) {
    const int64_t blocks = (count + kGroup - 1) / kGroup;
    const auto* const query = static_cast<const char*>(a.query) + plane * (a.bfloat16 ? 2 : 4);
    for (int64_t block = 0; block < blocks; ++block)
        for (int region = 0; region < 2; ++region)
            pack_weighted<kGradient>({query, a.bfloat16, a.depth, 0, least(kGroup, count - block * kGroup),
                                      rows + block * kGroup},
                                     s.weights + (region * kSlab + block) * kGroup, plan.steps,
                                     s.weighted + (block * 2 + region) * plan.steps * plan.step);
    std::memset(s.query_gradient, 0, static_cast<std::size_t>(blocks * 2 * plan.steps * kScores) * 4);
    for (int region = 0; region < 2; ++region) {
        const int64_t end = (s.regions.end[region] + kGroup - 1) / kGroup;
        for (int64_t group = s.regions.first[region] / kGroup; group < end; group += kKeyGroups)
            for (int64_t block = 0; block < blocks; block += kPair)
                add_gradients<kParts, kGradient>(plan, region, group, least(kKeyGroups, end - group), block,
                                                 least(kPair, blocks - block), s);
    }
    for (int64_t block = 0; block < blocks; ++block)
        write_query_gradient(a, plan, rows + block * kGroup, least(kGroup, count - block * kGroup), plane, block, s);
}

// Rows of a slab: leaked[i] = what row i leaks, divided by the heads; then the gradients.
template <int kParts, int kGradient>
void leakage_slab(const Leakage& a, const LeakagePlan& plan, const int64_t* rows, int64_t count, int64_t plane,
                  float* leaked, const LeakageScratch& s) {
    const int64_t blocks = (count + kGroup - 1) / kGroup;
    const auto* const query = static_cast<const char*>(a.query) + plane * (a.bfloat16 ? 2 : 4);
    for (int64_t block = 0; block < blocks; ++block)
        pack_right<kParts>({query, a.bfloat16, a.depth, 0, least(kGroup, count - block * kGroup),
                            rows + block * kGroup},
                           plan.steps, s.queries + block * plan.size);
    written();
    sum_regions<kParts>(plan, blocks, s);
    const float share = 1.0f / static_cast<float>(a.heads);
    for (int64_t i = 0; i < blocks * kGroup; ++i) {
        const float leak = s.sums[kSlab * kGroup + i], total = s.sums[i] + leak, weight = share * a.scale / total;
        if (i < count) leaked[i] = leak / total * share;
        s.weights[i] = -leak / total * weight;
        s.weights[kSlab * kGroup + i] = s.sums[i] / total * weight;
    }
    if (a.key_gradient != nullptr) gradient_slab<kParts, kGradient>(a, plan, rows, count, plane, s);
}

}  // namespace
}  // namespace lesionforge
