// The passes around the convolution of norm_act_conv2d; defined by kernels/norm_act_conv/reference.py.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

namespace lesionforge {

enum class Dtype { float32, bfloat16 };
enum class InstructionSet { generic, avx2, avx512 };

// Names of the sets that this processor runs and this build contains, the widest last.
std::vector<std::string> instruction_sets();

// The set of that name, "widest" included; throws std::invalid_argument for one that cannot run here.
InstructionSet instruction_set(const std::string& name);

struct Map {  // a dense batch of maps, [cases][pixels][channels] if channels_last, else [cases][channels][pixels]
    std::int64_t cases, channels, pixels;
    bool channels_last;
    Dtype dtype;
};

// out = silu(group_norm(x)); gamma, beta (channels). The bits depend neither on the threads nor on the other cases.
void group_norm_silu(const void* x, const float* gamma, const float* beta, void* out, const Map& map,
                     std::int64_t groups, double eps, InstructionSet set, int threads);

// y += shift[case][channel] + residual in float32, rounded once; shift and residual may be null.
void add_shift_residual(void* y, const float* shift, const void* residual, const Map& map, InstructionSet set,
                        int threads);

}  // namespace lesionforge
