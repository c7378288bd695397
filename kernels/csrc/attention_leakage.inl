// Leakage: scores of a block of rows are computed once and used for value and gradients while in the cache.
#include "attention.hpp"
#include "attention_vectors.inl"

namespace lesionforge {
namespace {

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

int64_t blocks_of(const Leakage& a, int64_t task) {
    return (a.offsets[task + 1] - a.offsets[task] + kRows - 1) / kRows;
}

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
    const float* key = floats(a.key) + plane_of(a, place);
    pack_panels(key, shape, a.scale * kLog2E, s.panels);
    std::memcpy(s.values, a.values + place.task * a.tokens, static_cast<std::size_t>(a.tokens) * 4);
    if (a.key_gradient == nullptr) return;
    pack_rows(key, shape.tokens, shape, s.key);
    std::memset(s.key_gradient, 0, static_cast<std::size_t>(shape.keys * shape.width) * 4);
}

// Writes the gradient of the keys of a head, or adds it to what another worker wrote.
void leave_head(const Leakage& a, const Shape& shape, int64_t task, int64_t head, bool add, const LeakageScratch& s) {
    if (a.key_gradient == nullptr) return;
    const int64_t plane = (task % a.tasks_per_case * a.cases + task / a.tasks_per_case) * a.heads + head;
    float* to = static_cast<float*>(a.key_gradient) + plane * a.tokens * a.depth;
    const float* from = s.key_gradient;
    for (int64_t q = 0; q < a.tokens; ++q, to += a.depth, from += shape.width)
        for (int64_t k = 0; k < a.depth; ++k) to[k] = add ? to[k] + from[k] : from[k];
}

// Leakage of one block of rows, and its part of the gradients: the scores are computed once and used while in cache.
double leakage_block(const Leakage& a, const Shape& shape, const Place& place, const LeakageScratch& s) {
    const int64_t plane = plane_of(a, place), whole = round_up(place.rows, kScoreRows);
    for (int64_t i = 0; i < place.rows; ++i)
        pack_rows(floats(a.query) + plane + a.rows[place.first + i] * a.depth, 1, shape, s.query + i * shape.width);
    const int64_t padding = (whole - place.rows) * shape.width;
    std::memset(s.query + place.rows * shape.width, 0, static_cast<std::size_t>(padding) * 4);
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
        std::memcpy(static_cast<float*>(a.query_gradient) + plane + a.rows[place.first + i] * a.depth,
                    s.query_gradient + i * shape.width, static_cast<std::size_t>(a.depth) * 4);
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
            leave_head(a, shape, open.task, open.head, false, s);
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
    const Zeros scratch(team * each), inherited(a.key_gradient != nullptr ? team * plane : 0), partial(2 * blocks);
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
        leave_head(a, shape, place.task, place.head, true, handed);
    }
}

}  // namespace
}  // namespace lesionforge
