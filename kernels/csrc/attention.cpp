#include "attention.hpp"

#include <cstring>
#include <stdexcept>
#include <string>

namespace lesionforge {
namespace {

bool can_run(const AttentionKernels& kernels) {
    if (&kernels == &kAttentionGeneric) return true;
#if defined(LESIONFORGE_X86_KERNELS)
    if (&kernels == &kAttentionAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (&kernels == &kAttentionAvx512) return __builtin_cpu_supports("avx512f");
#endif
    return false;
}

const AttentionKernels* const kFastestFirst[] = {
#if defined(LESIONFORGE_X86_KERNELS)
    &kAttentionAvx512, &kAttentionAvx2,
#endif
    &kAttentionGeneric};

const AttentionKernels* find(const char* name) {
    for (const AttentionKernels* kernels : kFastestFirst)
        if ((*name == '\0' || std::strcmp(name, kernels->name) == 0) && can_run(*kernels)) return kernels;
    return nullptr;
}

}  // namespace

bool has_attention_kernels(const char* name) { return find(name) != nullptr; }


const AttentionKernels& attention_kernels(const char* name) {
    if (const AttentionKernels* kernels = find(name)) return *kernels;
    throw std::invalid_argument(std::string("this CPU or build has no instruction set ") + name);
}

}  // namespace lesionforge
