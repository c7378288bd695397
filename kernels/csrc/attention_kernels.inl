// The kernels of attention.hpp for one instruction set. The file that includes this sets its width and register tiles,
// CMakeLists.txt its compiler flags. Only names without linkage: a template shared with another file could be linked
// from the wrong instruction set.
#include "attention_leakage.inl"
#include "attention_mean.inl"
#include "attention_scaling.inl"

namespace lesionforge {

const AttentionKernels LESIONFORGE_ISA_TABLE{LESIONFORGE_ISA, false, mean_attention, leakage, scale_gradients};

}  // namespace lesionforge
