// The attention kernels on odd sizes, numbers, instruction sets and threads, in buffers of exactly their size; prints
// the calls.
#include <cstdint>
#include <cstdio>
#include <limits>
#include <random>
#include <vector>

#include "attention.hpp"

using namespace lesionforge;
using std::int64_t;

struct Inputs {
    Inputs(int64_t size, bool bfloat16, float top) : bytes(static_cast<std::size_t>(size) * (bfloat16 ? 2 : 4)) {
        std::mt19937 random(static_cast<unsigned>(size));
        std::uniform_real_distribution<float> uniform(-top, top);
        for (std::size_t i = 0; i < static_cast<std::size_t>(size); ++i) {
            const float x = i == 5 && top > 9 ? std::numeric_limits<float>::quiet_NaN() : uniform(random);
            const auto* from = reinterpret_cast<const std::uint8_t*>(&x) + (bfloat16 ? 2 : 0);
            for (std::size_t j = 0; j < (bfloat16 ? 2 : 4); ++j) bytes[i * (bfloat16 ? 2 : 4) + j] = from[j];
        }
    }
    std::vector<std::uint8_t> bytes;
};

int main() {
    int calls = 0;
    // Cases, heads, tokens, depth, columns, largest number.
    const int64_t shapes[][6] = {{1, 1, 1, 1, 1, 1},   {2, 3, 33, 40, 2, 3},  {1, 2, 64, 64, 5, 1},
                                 {2, 1, 131, 7, 0, 30}, {1, 5, 95, 80, 3, 30}, {1, 1, 1456, 3, 1, 1}};
    for (const auto& [cases, heads, tokens, depth, columns, top] : shapes)
        for (const char* set : {"generic", "avx2", "avx512", "amx"})
            for (const bool bfloat16 : {false, true})
                for (const int threads : {1, 3}) {
                    if (!has_attention_kernels(set) || (bfloat16 && !attention_kernels(set).bfloat16)) continue;
                    const AttentionKernels& kernels = attention_kernels(set);
                    const int64_t size = cases * heads * tokens * depth;
                    const Inputs query(size, bfloat16, static_cast<float>(top)), key(size, bfloat16, 1);
                    const std::vector<float> values(static_cast<std::size_t>(columns * tokens), 0.5f);
                    std::vector<float> map(static_cast<std::size_t>(tokens * tokens)), out(values.size());
                    for (float* const to : {map.data(), static_cast<float*>(nullptr)})
                        kernels.mean({query.bytes.data(), key.bytes.data(), columns > 0 ? values.data() : nullptr, to,
                                      out.data(), heads, tokens, depth, columns, 0.5f, threads, bfloat16});
                    std::vector<int64_t> rows, offsets{0};
                    std::vector<float> leaks;
                    for (int64_t task = 0; task < 2 * cases; ++task) {
                        for (int64_t token = 0; token < tokens; ++token) {
                            const bool in = (token % 3 == 0) == (task % 2 == 0) && task < 3;
                            if (in) rows.push_back(token);
                            leaks.push_back(in ? 0.0f : 1.0f);
                        }
                        offsets.push_back(static_cast<int64_t>(rows.size()));
                    }
                    std::vector<double> sums(static_cast<std::size_t>(2 * cases));
                    const std::size_t bytes = query.bytes.size();
                    std::vector<std::uint8_t> of_query(bytes), of_key(2 * bytes), scaled(2 * bytes);
                    for (const bool wanted : {true, false})
                        kernels.leakage({query.bytes.data(), key.bytes.data(), rows.data(), offsets.data(),
                                         leaks.data(), sums.data(), wanted ? of_query.data() : nullptr,
                                         wanted ? of_key.data() : nullptr, cases, 2, heads, tokens, depth, 0.5f,
                                         threads, bfloat16});
                    std::vector<float> by_row(static_cast<std::size_t>(cases * tokens), 0.5f);
                    by_row[0] = 0;
                    const std::vector<float> by_column(static_cast<std::size_t>(2 * cases), 0.5f);
                    for (const int64_t used : {1, 2})
                        kernels.scale({of_query.data(), of_key.data(), by_row.data(), by_column.data(), scaled.data(),
                                       scaled.data() + bytes, cases, used, heads, tokens, depth, threads, bfloat16});
                    ++calls;
                }
    std::printf("%d\n", calls);
}
