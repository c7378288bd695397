// Both passes on odd sizes, layouts, dtypes and instruction sets, in buffers of exactly their size; prints the calls.
#include <cstdint>
#include <cstdio>
#include <limits>
#include <vector>

#include "norm_act_conv2d.hpp"

int main() {
    using namespace lesionforge;
    int calls = 0;
    const std::int64_t shapes[][4] = {{0, 4, 9, 2}, {1, 1, 1, 1},  {2, 6, 63, 3},       {3, 66, 65, 1},
                                      {5, 20, 1, 5}, {1, 3, 33000, 1}, {1, 33000, 2, 1000}, {2, 32, 1100, 8}};
    for (const auto& [cases, channels, pixels, groups] : shapes)
        for (const std::string& set : instruction_sets())
            for (const bool channels_last : {false, true})
                for (const Dtype dtype : {Dtype::float32, Dtype::bfloat16})
                    for (const int threads : {1, 3}) {
                        const Map map{cases, channels, pixels, channels_last, dtype};
                        const std::size_t size = static_cast<std::size_t>(cases * channels * pixels);
                        const std::size_t bytes = size * (dtype == Dtype::float32 ? 4 : 2);
                        std::vector<std::uint8_t> x(bytes), out(bytes), residual(bytes);
                        for (std::size_t i = 0; i < bytes; ++i) x[i] = static_cast<std::uint8_t>(i * 37 + i / 7);
                        std::vector<float> gamma(channels, 1.5f), beta(channels), shift(cases * channels, 2.0f);
                        gamma[0] = std::numeric_limits<float>::infinity();
                        group_norm_silu(x.data(), gamma.data(), beta.data(), out.data(), map, groups, 1e-5,
                                        instruction_set(set), threads);
                        add_shift_residual(out.data(), shift.data(), residual.data(), map, instruction_set(set),
                                           threads);
                        add_shift_residual(out.data(), nullptr, x.data(), map, instruction_set(set), threads);
                        add_shift_residual(out.data(), shift.data(), nullptr, map, instruction_set(set), threads);
                        ++calls;
                    }
    std::printf("%d\n", calls);
}
