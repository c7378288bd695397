#include "attention.hpp"

#include <cstring>
#include <stdexcept>
#include <string>

#if defined(LESIONFORGE_AMX_KERNELS)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lesionforge {
namespace {

#if defined(LESIONFORGE_AMX_KERNELS)
// Linux grants the state of the tiles to a process that asks for it.
bool ask_for_tiles() {
    constexpr unsigned kTile = 1u << 24, kBfloat16 = 1u << 22;  // of leaf 7
    constexpr long kRequestPermission = 0x1023, kTileData = 18;
    unsigned eax, ebx, ecx, edx;
    if (!__get_cpuid_count(7, 0, &eax, &ebx, &ecx, &edx) || (~edx & (kTile | kBfloat16)) != 0) return false;
    return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

bool has_tiles() {
    static const bool granted = ask_for_tiles();
    return granted && __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
           __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}
#endif

bool can_run(const AttentionKernels& kernels) {
    if (&kernels == &kAttentionGeneric) return true;
#if defined(LESIONFORGE_X86_KERNELS)
    if (&kernels == &kAttentionAvx2) return __builtin_cpu_supports("avx2") && __builtin_cpu_supports("fma");
    if (&kernels == &kAttentionAvx512) return __builtin_cpu_supports("avx512f");
#endif
#if defined(LESIONFORGE_AMX_KERNELS)
    if (&kernels == &kAttentionAmx) return has_tiles();
#endif
    return false;
}

const AttentionKernels* const kFastestFirst[] = {
#if defined(LESIONFORGE_AMX_KERNELS)
    &kAttentionAmx,
#endif
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
