#include "norm_act_conv2d.hpp"

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <stdexcept>
#include <string>
#include <vector>

#include "norm_act_conv2d_loops.hpp"

namespace lesionforge {
namespace {

constexpr int64_t kChunk = 1 << 15;  // numbers that are summed in one go; fixed, so that threads do not change a bit
constexpr int64_t kRow = 1 << 12;  // of them those of one channel, in 64 sums
constexpr int64_t kRows = 1 << 8;  // pixels in one sum: a longer one would lose what follows an outlier
constexpr int64_t kWorthAThread = 1 << 14;

// One batch on its way through group_norm_silu. A chunk is some pixels of all channels, or a channel's row.
template <typename T>
class Normalisation {
public:
    Normalisation(const T* x, const float* gamma, const float* beta, T* out, const Map& map, int64_t groups,
                  double eps, const Kernels<T>& kernels)
        : x_(x), gamma_(gamma), beta_(beta), out_(out), map_(map), groups_(groups), eps_(eps), kernels_(kernels),
          rows_(std::clamp<int64_t>(kChunk / map.channels, 1, kRows)), span_(map.channels_last ? map.channels : 1),
          chunks_(map.channels_last ? (map.pixels + rows_ - 1) / rows_ : map.channels),
          sums_(static_cast<std::size_t>(3 * map.cases * chunks_ * span_)),
          affine_(static_cast<std::size_t>(3 * map.cases * map.channels)) {}

    int64_t chunks() const { return chunks_; }

    void sum(int64_t number, int64_t chunk) {
        if (map_.channels_last)
            kernels_.sum_pixels(at(x_, number, chunk), rows(chunk), map_.channels, sums(number, chunk));
        else
            sum_long_row(at(x_, number, chunk), sums(number, chunk));
    }

    void apply(int64_t number, int64_t chunk) {
        const float* mean = affine_.data() + 3 * number * map_.channels;
        const float *scale = mean + map_.channels, *offset = scale + map_.channels;
        if (map_.channels_last)
            kernels_.apply_pixels(at(x_, number, chunk), at(out_, number, chunk), rows(chunk), map_.channels, mean,
                                  scale, offset);
        else
            kernels_.apply_row(at(x_, number, chunk), at(out_, number, chunk), map_.pixels, mean[chunk], scale[chunk],
                               offset[chunk]);
    }

    // Joins the sums of a case to mean and variance of its groups, in float64.
    void combine(int64_t number) {
        const int64_t width = map_.channels / groups_;
        float* mean = affine_.data() + 3 * number * map_.channels;
        float *scale = mean + map_.channels, *offset = scale + map_.channels;
        for (int64_t group = 0; group < groups_; ++group) {
            double total = 0, centre = 0, spread = 0;
            for (int64_t c = group * width; c < (group + 1) * width; ++c) join(number, c, total, centre, spread);
            const double inverse = 1.0 / std::sqrt(spread / total + eps_);
            for (int64_t c = group * width; c < (group + 1) * width; ++c) {
                mean[c] = static_cast<float>(centre);
                scale[c] = static_cast<float>(inverse * gamma_[c]);
                // What rounding takes from the mean is given back here.
                offset[c] = static_cast<float>(beta_[c] - (centre - mean[c]) * inverse * gamma_[c]);
            }
        }
    }

private:
    template <typename U>
    U* at(U* base, int64_t number, int64_t chunk) const {
        return base + (number * map_.channels * map_.pixels) +
               (map_.channels_last ? chunk * rows_ * map_.channels : chunk * map_.pixels);
    }

    int64_t rows(int64_t chunk) const { return std::min(rows_, map_.pixels - chunk * rows_); }

    Sums sums(int64_t number, int64_t chunk) {
        float* base = sums_.data() + 3 * (number * chunks_ + chunk) * span_;
        return {base, base + span_, base + 2 * span_};
    }

    // A long row in pieces, so that a float32 sum never grows long; the pieces are joined in float64.
    void sum_long_row(const T* x, const Sums& out) {
        double total = 0, centre = 0, spread = 0;
        for (int64_t i = 0; i < map_.pixels; i += kRow) {
            float piece[3];
            const int64_t count = std::min(kRow, map_.pixels - i);
            kernels_.sum_row(x + i, count, {piece, piece + 1, piece + 2});
            merge(piece[0], piece[1], piece[2], static_cast<double>(count), total, centre, spread);
        }
        *out.pivot = static_cast<float>(centre);
        const double rest = centre - *out.pivot;
        *out.first = static_cast<float>(rest * total);
        *out.second = static_cast<float>(spread + rest * rest * total);
    }

    void join(int64_t number, int64_t channel, double& total, double& centre, double& spread) {
        const int64_t begin = map_.channels_last ? 0 : channel, end = map_.channels_last ? chunks_ : channel + 1;
        for (int64_t chunk = begin; chunk < end; ++chunk) {
            const Sums part = sums(number, chunk);
            const int64_t c = map_.channels_last ? channel : 0;
            const int64_t count = map_.channels_last ? rows(chunk) : map_.pixels;
            merge(part.pivot[c], part.first[c], part.second[c], static_cast<double>(count), total, centre, spread);
        }
    }

    // Chan, Golub, LeVeque 1983: mean and sum of squared deviations of two parts together.
    static void merge(double pivot, double first, double second, double count, double& total, double& centre,
                      double& spread) {
        const double deviation = second - first * first / count;
        const double distance = pivot + first / count - centre;
        const double together = total + count;
        centre += distance * count / together;
        // An infinity must make the variance NaN as in the definition, which std::max would hide.
        spread += (deviation < 0 ? 0 : deviation) + distance * distance * total * count / together;
        total = together;
    }

    const T* x_;
    const float *gamma_, *beta_;
    T* out_;
    Map map_;
    int64_t groups_;
    double eps_;
    const Kernels<T>& kernels_;
    int64_t rows_, span_, chunks_;
    std::vector<float> sums_, affine_;
};

int team_for([[maybe_unused]] int64_t work, int64_t jobs, int threads) {
    return static_cast<int>(std::clamp<int64_t>(std::min(work / kWorthAThread, jobs), 1, threads));
}

template <typename T>
void normalise(Normalisation<T> work, const Map& map, int threads) {
    const int64_t chunks = work.chunks(), jobs = map.cases * chunks;
    [[maybe_unused]] const int team = team_for(map.cases * map.channels * map.pixels, jobs, threads);
    if (map.cases % team == 0 || map.cases >= 4 * team) {
        // A case stays in the cache between its sums and its result.
#pragma omp parallel for schedule(static) num_threads(team)
        for (int64_t number = 0; number < map.cases; ++number) {
            for (int64_t chunk = 0; chunk < chunks; ++chunk) work.sum(number, chunk);
            work.combine(number);
            for (int64_t chunk = 0; chunk < chunks; ++chunk) work.apply(number, chunk);
        }
        return;
    }
#pragma omp parallel num_threads(team)
    {
#pragma omp for schedule(static)
        for (int64_t job = 0; job < jobs; ++job) work.sum(job / chunks, job % chunks);
#pragma omp for schedule(static)
        for (int64_t number = 0; number < map.cases; ++number) work.combine(number);
#pragma omp for schedule(static)
        for (int64_t job = 0; job < jobs; ++job) work.apply(job / chunks, job % chunks);
    }
}

template <typename T>
void add_all(T* y, const float* shift, const T* residual, const Map& map, const Kernels<T>& kernels, int threads) {
    const int64_t rows = std::max<int64_t>(1, kChunk / map.channels);
    const int64_t chunks = map.channels_last ? (map.pixels + rows - 1) / rows : map.channels;
    const int64_t jobs = map.cases * chunks, size = map.channels * map.pixels;
    [[maybe_unused]] const int team = team_for(map.cases * size, jobs, threads);
#pragma omp parallel for schedule(static) num_threads(team)
    for (int64_t job = 0; job < jobs; ++job) {
        const int64_t number = job / chunks, chunk = job % chunks;
        const int64_t start = number * size + (map.channels_last ? chunk * rows * map.channels : chunk * map.pixels);
        const T* other = residual ? residual + start : nullptr;
        const float* row = shift ? shift + number * map.channels + (map.channels_last ? 0 : chunk) : nullptr;
        if (map.channels_last)
            kernels.add_pixels(y + start, row, other, std::min(rows, map.pixels - chunk * rows), map.channels);
        else
            kernels.add_row(y + start, row, other, 1, map.pixels);
    }
}

template <typename T>
void norm_as(const void* x, const float* gamma, const float* beta, void* out, const Map& map, int64_t groups,
             double eps, InstructionSet set, int threads) {
    normalise(Normalisation<T>(static_cast<const T*>(x), gamma, beta, static_cast<T*>(out), map, groups, eps,
                               kernels_of<T>(set)),
              map, threads);
}

template <typename T>
void add_as(void* y, const float* shift, const void* residual, const Map& map, InstructionSet set, int threads) {
    add_all(static_cast<T*>(y), shift, static_cast<const T*>(residual), map, kernels_of<T>(set), threads);
}

}  // namespace

std::vector<std::string> instruction_sets() {
    std::vector<std::string> names{"generic"};
#ifdef LESIONFORGE_X86
    if (!(__builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma"))) return names;
    names.emplace_back("avx2");
    if (__builtin_cpu_supports("avx512f") && __builtin_cpu_supports("avx512bw") &&
        __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512dq"))
        names.emplace_back("avx512");
#endif
    return names;
}

InstructionSet instruction_set(const std::string& name) {
    static const std::vector<std::string> names = instruction_sets();
    const auto found = name == "widest" ? names.end() - 1 : std::find(names.begin(), names.end(), name);
    if (found == names.end()) throw std::invalid_argument("instruction set " + name + " cannot run here");
    return static_cast<InstructionSet>(found - names.begin());
}

void group_norm_silu(const void* x, const float* gamma, const float* beta, void* out, const Map& map, int64_t groups,
                     double eps, InstructionSet set, int threads) {
    if (map.cases * map.channels * map.pixels == 0) return;
    const auto work = map.dtype == Dtype::float32 ? norm_as<float> : norm_as<bfloat16>;
    work(x, gamma, beta, out, map, groups, eps, set, threads);
}

void add_shift_residual(void* y, const float* shift, const void* residual, const Map& map, InstructionSet set,
                        int threads) {
    if (map.cases * map.channels * map.pixels == 0) return;
    const auto work = map.dtype == Dtype::float32 ? add_as<float> : add_as<bfloat16>;
    work(y, shift, residual, map, set, threads);
}

}  // namespace lesionforge
