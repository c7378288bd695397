// The loader picks the widest instruction set of this CPU for a function marked so; glibc and ELF only.
// Not under the sanitizers for addresses and threads, whose run time is not up yet when the loader picks.
#pragma once

#include <cstdint>  // any header of the library, for __GLIBC__

#if defined(__GNUC__) && defined(__x86_64__) && defined(__GLIBC__) && !defined(__SANITIZE_ADDRESS__) && \
    !defined(__SANITIZE_THREAD__)
#define LESIONFORGE_MULTIARCH __attribute__((target_clones("avx512f", "avx2", "default")))
#else
#define LESIONFORGE_MULTIARCH
#endif

// Behind a lambda's parameters: its body must be compiled for the instruction set of the function around it.
#if defined(__GNUC__)
#define LESIONFORGE_INLINED __attribute__((always_inline))
#else
#define LESIONFORGE_INLINED
#endif
