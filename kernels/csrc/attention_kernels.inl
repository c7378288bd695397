// The kernels of attention.hpp for one instruction set. The file that includes this sets its width and register tiles,
// CMakeLists.txt its compiler flags. Only names without linkage: a template shared with another file could be linked
// from the wrong instruction set.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <new>

#include "attention.hpp"

namespace lesionforge {
namespace {

using std::int32_t;
using std::int64_t;

constexpr int kLanes = LESIONFORGE_LANES;
constexpr int kScoreRows = LESIONFORGE_SCORE_ROWS;
constexpr int kGradientRows = LESIONFORGE_GRADIENT_ROWS;
constexpr int kGradientKeys = LESIONFORGE_GRADIENT_KEYS;
constexpr int64_t kPanel = 2 * kLanes;  // keys side by side in a packed panel
constexpr int64_t kRows = 24;           // query rows whose scores stay in the cache; a multiple of both row tiles
constexpr float kLog2E = 1.44269504088896341f;

typedef float Vec __attribute__((vector_size(4 * LESIONFORGE_LANES)));
typedef float Loose __attribute__((vector_size(4 * LESIONFORGE_LANES), aligned(4), may_alias));
typedef int32_t Ints __attribute__((vector_size(4 * LESIONFORGE_LANES)));

#define LESIONFORGE_INLINE inline __attribute__((always_inline))

LESIONFORGE_INLINE Vec load(const float* p) { return *reinterpret_cast<const Loose*>(p); }
LESIONFORGE_INLINE void store(float* p, Vec v) { *reinterpret_cast<Loose*>(p) = v; }
LESIONFORGE_INLINE Vec all(float x) { return Vec{} + x; }
LESIONFORGE_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
LESIONFORGE_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

LESIONFORGE_INLINE float total(Vec v) {
    float sum = 0;
    for (int i = 0; i < kLanes; ++i) sum += v[i];
    return sum;
}

// 2^x for x <= 0, relative error 2e-7; a NaN stays one, which is why the scale is multiplied and not added to the bits.
LESIONFORGE_INLINE Vec exp2_of(Vec x) {
    const Vec low = all(-126.0f), magic = all(12582912.0f);
    x = x < low ? low : x;
    const Vec shifted = x + magic;
    const Vec f = x - (shifted - magic);
    Vec p = all(0.00015461444854736328f);
    p = p * f + 0.0013400427997112274f;
    p = p * f + 0.009618056938052177f;
    p = p * f + 0.05550327152013779f;
    p = p * f + 0.24022650718688965f;
    p = p * f + 0.6931471824645996f;
    p = p * f + 1.0f;
    const Ints power = (Ints)shifted - (Ints)magic + 127;
    return p * (Vec)(power << 23);
}

// Zeroed, aligned scratch memory; a plain class, for the reason given on top.
class Scratch {
public:
    explicit Scratch(int64_t floats) {
        const auto bytes = static_cast<std::size_t>(round_up(floats * 4 + 64, 64));
        data_ = static_cast<float*>(std::aligned_alloc(64, bytes));
        if (data_ == nullptr) throw std::bad_alloc();
        std::memset(data_, 0, bytes);
    }
    ~Scratch() { std::free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    float* get() const { return data_; }

private:
    float* data_;
};

struct Shape {
    Shape(int64_t tokens, int64_t depth)
        : tokens(tokens), depth(depth), keys(round_up(tokens, kPanel)), width(round_up(depth, kLanes)) {}
    int64_t tokens, depth;
    int64_t keys;   // tokens padded to whole panels
    int64_t width;  // depth padded to whole vectors
    int64_t packed() const { return keys * depth; }
};

// Keys (tokens, depth) times `factor`, as panels [keys / kPanel][depth][kPanel].
void pack_panels(const float* key, const Shape& shape, float factor, float* panels) {
    for (int64_t first = 0; first < shape.keys; first += kPanel, panels += kPanel * shape.depth)
        for (int64_t j = 0; j < kPanel; ++j)
            for (int64_t k = 0; k < shape.depth; ++k)
                panels[k * kPanel + j] = first + j < shape.tokens ? key[(first + j) * shape.depth + k] * factor : 0.0f;
}

// Rows of depth numbers, padded with zeros to `width`.
void pack_rows(const float* from, int64_t rows, const Shape& shape, float* to) {
    for (int64_t i = 0; i < rows; ++i, from += shape.depth, to += shape.width) {
        std::memcpy(to, from, static_cast<std::size_t>(shape.depth) * 4);
        std::memset(to + shape.depth, 0, static_cast<std::size_t>(shape.width - shape.depth) * 4);
    }
}

// scores (kScoreRows, kPanel) = query rows times one panel.
LESIONFORGE_INLINE void score_tile(const float* query, int64_t width, const float* panel, int64_t depth, float* scores,
                                   int64_t keys) {
    Vec left[kScoreRows] = {}, right[kScoreRows] = {};
    for (int64_t k = 0; k < depth; ++k, panel += kPanel) {
        const Vec a = load(panel), b = load(panel + kLanes);
#pragma GCC unroll 16
        for (int i = 0; i < kScoreRows; ++i) {
            const Vec q = all(query[i * width + k]);
            left[i] += q * a;
            right[i] += q * b;
        }
    }
#pragma GCC unroll 16
    for (int i = 0; i < kScoreRows; ++i) {
        store(scores + i * keys, left[i]);
        store(scores + i * keys + kLanes, right[i]);
    }
}

// scores (rows up to a whole tile, keys); keys that are only padding get -inf.
void score_rows(const float* query, int64_t rows, const float* panels, const Shape& shape, float* scores) {
    for (int64_t first = 0; first < shape.keys; first += kPanel)
        for (int64_t i = 0; i < rows; i += kScoreRows)
            score_tile(query + i * shape.width, shape.width, panels + first * shape.depth, shape.depth,
                       scores + i * shape.keys + first, shape.keys);
    for (int64_t i = 0; i < round_up(rows, kScoreRows); ++i)
        for (int64_t q = shape.tokens; q < shape.keys; ++q)
            scores[i * shape.keys + q] = -std::numeric_limits<float>::infinity();
}

LESIONFORGE_INLINE float row_maximum(const float* row, int64_t keys) {
    Vec top = load(row);
    for (int64_t q = kLanes; q < keys; q += kLanes) {
        const Vec s = load(row + q);
        top = top > s ? top : s;
    }
    float maximum = top[0];
    for (int i = 1; i < kLanes; ++i) maximum = maximum > top[i] ? maximum : top[i];
    return maximum;
}

// row <- 2^(row - max); returns its sum.
LESIONFORGE_INLINE float exponentiate(float* row, int64_t keys) {
    const Vec maximum = all(row_maximum(row, keys));
    Vec sum{};
    for (int64_t q = 0; q < keys; q += kLanes) {
        const Vec p = exp2_of(load(row + q) - maximum);
        store(row + q, p);
        sum += p;
    }
    return total(sum);
}

LESIONFORGE_INLINE float dot(const float* a, const float* b, int64_t padded) {
    Vec sum{};
    for (int64_t q = 0; q < padded; q += kLanes) sum += load(a + q) * load(b + q);
    return total(sum);
}

// mean (+)= row * factor, the first `tokens` of it.
LESIONFORGE_INLINE void accumulate(float* mean, const float* row, float factor, int64_t tokens, bool first) {
    int64_t q = 0;
    for (; q + kLanes <= tokens; q += kLanes) {
        const Vec p = load(row + q) * factor;
        store(mean + q, first ? p : load(mean + q) + p);
    }
    for (; q < tokens; ++q) mean[q] = first ? row[q] * factor : mean[q] + row[q] * factor;
}

struct MeanScratch {
    float *query, *scores, *mean, *values;
};

void mean_block(const MeanAttention& a, const Shape& shape, const float* panels, int64_t first, MeanScratch s) {
    const int64_t rows = least(kRows, shape.tokens - first);
    for (int64_t head = 0; head < a.heads; ++head) {
        pack_rows(a.query + (head * shape.tokens + first) * shape.depth, rows, shape, s.query);
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
    const Scratch panels(a.heads * shape.packed()), values(columns * shape.keys), scratch(team * each);
    for (int64_t c = 0; c < columns; ++c)
        std::memcpy(values.get() + c * shape.keys, a.values + c * a.tokens, static_cast<std::size_t>(a.tokens) * 4);
#pragma omp parallel num_threads(team)
    {
#pragma omp for schedule(static)
        for (int64_t head = 0; head < a.heads; ++head)
            pack_panels(a.key + head * a.tokens * a.depth, shape, a.scale * kLog2E,
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

// out (kGradientRows, V vectors) = scores (rows, keys) times key rows (keys, width).
template <int V>
LESIONFORGE_INLINE void query_tile(const float* scores, const float* key, const Shape& shape, float* out) {
    Vec sum[kGradientRows][V] = {};
    for (int64_t q = 0; q < shape.keys; ++q, key += shape.width) {
        Vec k[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) k[v] = load(key + v * kLanes);
#pragma GCC unroll 8
        for (int i = 0; i < kGradientRows; ++i) {
            const Vec s = all(scores[i * shape.keys + q]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[i][v] += s * k[v];
        }
    }
    for (int i = 0; i < kGradientRows; ++i)
        for (int v = 0; v < V; ++v) store(out + i * shape.width + v * kLanes, sum[i][v]);
}

// gradient (kGradientKeys, V vectors) += scores^T times query rows.
template <int V>
LESIONFORGE_INLINE void key_tile(const float* scores, int64_t rows, const float* query, const Shape& shape,
                                 float* gradient) {
    Vec sum[kGradientKeys][V];
#pragma GCC unroll 4
    for (int j = 0; j < kGradientKeys; ++j)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) sum[j][v] = load(gradient + j * shape.width + v * kLanes);
    for (int64_t i = 0; i < rows; ++i, scores += shape.keys, query += shape.width) {
        Vec r[V];
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) r[v] = load(query + v * kLanes);
#pragma GCC unroll 4
        for (int j = 0; j < kGradientKeys; ++j) {
            const Vec s = all(scores[j]);
#pragma GCC unroll 4
            for (int v = 0; v < V; ++v) sum[j][v] += s * r[v];
        }
    }
#pragma GCC unroll 4
    for (int j = 0; j < kGradientKeys; ++j)
#pragma GCC unroll 4
        for (int v = 0; v < V; ++v) store(gradient + j * shape.width + v * kLanes, sum[j][v]);
}

struct LeakageScratch {
    float *panels, *key, *key_gradient, *values, *query, *scores, *query_gradient;
};

template <int V>
void gradient_columns(const Shape& shape, int64_t rows, int64_t column, const LeakageScratch& s) {
    for (int64_t i = 0; i < rows; i += kGradientRows)
        query_tile<V>(s.scores + i * shape.keys, s.key + column, shape, s.query_gradient + i * shape.width + column);
    for (int64_t q = 0; q < shape.keys; q += kGradientKeys)
        key_tile<V>(s.scores + q, rows, s.query + column, shape, s.key_gradient + q * shape.width + column);
}

void gradients(const Shape& shape, int64_t rows, const LeakageScratch& s) {
    int64_t column = 0;
    for (; column + 4 * kLanes <= shape.width; column += 4 * kLanes) gradient_columns<4>(shape, rows, column, s);
    const int64_t left = (shape.width - column) / kLanes;
    if (left == 3) gradient_columns<3>(shape, rows, column, s);
    if (left == 2) gradient_columns<2>(shape, rows, column, s);
    if (left == 1) gradient_columns<1>(shape, rows, column, s);
}

// Where block `index` of all blocks lies: its task, its head and its rows.
struct Place {
    int64_t task = 0, head = 0, first = 0, rows = 0;
};

int64_t blocks_of(const Leakage& a, int64_t task) { return (a.offsets[task + 1] - a.offsets[task] + kRows - 1) / kRows; }

Place place_of(const Leakage& a, int64_t index) {
    Place place;
    while (index >= blocks_of(a, place.task) * a.heads) index -= blocks_of(a, place.task++) * a.heads;
    place.head = index / blocks_of(a, place.task);
    place.first = a.offsets[place.task] + index % blocks_of(a, place.task) * kRows;
    place.rows = least(kRows, a.offsets[place.task + 1] - place.first);
    return place;
}

int64_t plane_of(const Leakage& a, const Place& place) {
    return (place.task / a.tasks_per_case * a.heads + place.head) * a.tokens * a.depth;
}

void enter_head(const Leakage& a, const Shape& shape, const Place& place, const LeakageScratch& s) {
    const float* key = a.key + plane_of(a, place);
    pack_panels(key, shape, a.scale * kLog2E, s.panels);
    std::memcpy(s.values, a.values + place.task * a.tokens, static_cast<std::size_t>(a.tokens) * 4);
    if (a.key_gradient == nullptr) return;
    pack_rows(key, shape.tokens, shape, s.key);
    std::memset(s.key_gradient, 0, static_cast<std::size_t>(shape.keys * shape.width) * 4);
}

void leave_head(const Leakage& a, const Shape& shape, int64_t task, int64_t head, const LeakageScratch& s) {
    if (a.key_gradient == nullptr) return;
    float* to = a.key_gradient + (task * a.heads + head) * a.tokens * a.depth;
    for (int64_t q = 0; q < a.tokens; ++q)
        for (int64_t k = 0; k < a.depth; ++k) to[q * a.depth + k] += s.key_gradient[q * shape.width + k];
}

// Leakage of one block of rows, and its part of the gradients: the scores are computed once and used while in cache.
double leakage_block(const Leakage& a, const Shape& shape, const Place& place, const LeakageScratch& s) {
    const int64_t plane = plane_of(a, place), whole = round_up(place.rows, kScoreRows);
    for (int64_t i = 0; i < place.rows; ++i)
        pack_rows(a.query + plane + a.rows[place.first + i] * a.depth, 1, shape, s.query + i * shape.width);
    std::memset(s.query + place.rows * shape.width, 0, static_cast<std::size_t>((whole - place.rows) * shape.width) * 4);
    score_rows(s.query, place.rows, s.panels, shape, s.scores);
    const float share = 1.0f / static_cast<float>(a.heads);
    double leaked = 0;
    for (int64_t i = 0; i < whole; ++i) {
        float* row = s.scores + i * shape.keys;
        const float inverse = 1.0f / exponentiate(row, shape.keys);
        const float mean = dot(row, s.values, shape.keys) * inverse;
        if (i < place.rows) leaked += static_cast<double>(mean) * share;
        if (a.key_gradient == nullptr) continue;
        const float factor = i < place.rows ? inverse * share * a.scale : 0.0f;
        for (int64_t q = 0; q < shape.keys; q += kLanes)
            store(row + q, load(row + q) * (load(s.values + q) - mean) * factor);
    }
    if (a.key_gradient == nullptr) return leaked;
    gradients(shape, whole, s);
    for (int64_t i = 0; i < place.rows; ++i)
        std::memcpy(a.query_gradient + plane + a.rows[place.first + i] * a.depth, s.query_gradient + i * shape.width,
                    static_cast<std::size_t>(a.depth) * 4);
    return leaked;
}

int64_t leakage_floats(const Shape& shape) {
    return round_up(shape.packed(), 16) + 2 * shape.keys * shape.width + shape.keys + kRows * shape.width * 2 +
           kRows * shape.keys + 64;
}

LeakageScratch leakage_scratch(float* own, const Shape& shape) {
    LeakageScratch s;
    s.panels = own;
    s.key = s.panels + round_up(shape.packed(), 16);
    s.key_gradient = s.key + shape.keys * shape.width;
    s.values = s.key_gradient + shape.keys * shape.width;
    s.query = s.values + shape.keys;
    s.query_gradient = s.query + kRows * shape.width;
    s.scores = s.query_gradient + kRows * shape.width;
    return s;
}

// Works off blocks [begin, end). A head that began with an earlier worker is left open in `s` if it is the last one;
// its gradient is handed over in `inherited`.
void leakage_range(const Leakage& a, const Shape& shape, int64_t begin, int64_t end, const LeakageScratch& s,
                   double* sums, float* inherited) {
    Place open;
    bool ours = true;
    const auto close = [&] {
        if (ours) {
            leave_head(a, shape, open.task, open.head, s);
        } else if (a.key_gradient != nullptr) {
            std::memcpy(inherited, s.key_gradient, static_cast<std::size_t>(shape.keys * shape.width) * 4);
        }
    };
    for (int64_t index = begin; index < end; ++index) {
        const Place place = place_of(a, index);
        if (index == begin || place.task != open.task || place.head != open.head) {
            if (index != begin) close();
            ours = place.first == a.offsets[place.task];
            open = place;
            enter_head(a, shape, place, s);
        }
        sums[index] = leakage_block(a, shape, place, s);
    }
    if (begin < end) close();
}

void leakage(const Leakage& a) {
    const Shape shape(a.tokens, a.depth);
    const int64_t tasks = a.cases * a.tasks_per_case;
    int64_t blocks = 0;
    for (int64_t task = 0; task < tasks; ++task) {
        a.sums[task] = 0;
        blocks += blocks_of(a, task) * a.heads;
    }
    if (blocks == 0) return;
    const int team = static_cast<int>(least(a.threads, blocks));
    const int64_t plane = shape.keys * shape.width, each = round_up(leakage_floats(shape), 64);
    const Scratch scratch(team * each), inherited(a.key_gradient != nullptr ? team * plane : 0), partial(2 * blocks);
    double* const sums = reinterpret_cast<double*>(partial.get());
#pragma omp parallel for schedule(static) num_threads(team)
    for (int worker = 0; worker < team; ++worker)
        leakage_range(a, shape, blocks * worker / team, blocks * (worker + 1) / team,
                      leakage_scratch(scratch.get() + worker * each, shape), sums,
                      inherited.get() + (a.key_gradient != nullptr ? worker * plane : 0));
    for (int64_t index = 0; index < blocks; ++index) a.sums[place_of(a, index).task] += sums[index];
    for (int worker = 1; worker < team; ++worker) {
        const Place place = place_of(a, blocks * worker / team);
        if (place.first == a.offsets[place.task]) continue;
        LeakageScratch handed{};
        handed.key_gradient = inherited.get() + worker * plane;
        leave_head(a, shape, place.task, place.head, handed);
    }
}

}  // namespace

const AttentionKernels LESIONFORGE_ISA_TABLE{LESIONFORGE_ISA, mean_attention, leakage};

}  // namespace lesionforge
