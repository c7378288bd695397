// A stand-in for CUDA's header: the .cu sources, included unchanged, become plain C++20 that runs on the CPU.
//
// The blocks of a launch are dealt out to two threads of the CPU, so that neighbouring blocks run at once; block.hpp says
// how the threads of a block do. What kernels may use is what is here: another function does not compile.
#pragma once

#include <algorithm>
#include <array>
#include <bit>
#include <cmath>
#include <cstdint>
#include <cstring>
#include <functional>
#include <thread>
#include <type_traits>
#include <vector>

#include "block.hpp"

#define __global__
#define __device__
#define __host__
#define __forceinline__ inline
#define __shared__ static thread_local  // all fibers of a block run on one thread
#define __launch_bounds__(threads)

struct alignas(16) float4 {
    float x, y, z, w;
};
enum cudaError_t { cudaSuccess = 0, cudaErrorInvalidConfiguration = 9, cudaErrorInvalidDevice = 101 };
using cudaStream_t = void*;
struct cudaLaunchConfig_t {
    dim3 gridDim, blockDim;
    cudaStream_t stream;
};

namespace cuda_on_host {

constexpr int kBlocksAtOnce = 2;
inline Block blocks_at_once[kBlocksAtOnce];

// Gives the lanes' values to all of them.
inline std::array<std::uint32_t, kWarpSize> exchange(unsigned mask, std::uint32_t value) {
    if (mask != ~0u) fail("only whole warps meet here");
    Barrier& warp = this_block().of_warp();
    warp.lanes[threadIdx.x % kWarpSize] = value;
    this_block().arrive(warp, kWarpSize);
    const auto lanes = warp.lanes;
    this_block().arrive(warp, kWarpSize);
    return lanes;
}

template <typename T, typename F>
T atomically(T* place, F change) {
    this_block().maybe_pause();
    T before = __atomic_load_n(place, __ATOMIC_RELAXED);
    while (!__atomic_compare_exchange_n(place, &before, change(before), false, __ATOMIC_RELAXED, __ATOMIC_RELAXED)) {
    }
    return before;
}

}  // namespace cuda_on_host

inline cudaError_t cudaSetDevice(int device) { return device == 0 ? cudaSuccess : cudaErrorInvalidDevice; }
inline const char* cudaGetErrorString(cudaError_t error) {
    return error == cudaErrorInvalidDevice ? "invalid device ordinal" : "invalid configuration argument";
}
inline cudaError_t cudaMemsetAsync(void* place, int value, std::size_t bytes, cudaStream_t) {
    std::memset(place, value, bytes);
    return cudaSuccess;
}

template <typename... Parameters, typename... Arguments>
cudaError_t cudaLaunchKernelEx(const cudaLaunchConfig_t* config, void (*kernel)(Parameters...),
                               Arguments... arguments) {
    if (config->gridDim.x == 0 || config->blockDim.x == 0 || config->blockDim.x > 1024)
        return cudaErrorInvalidConfiguration;
    const std::function<void()> body = [&] { kernel(arguments...); };
    const auto work = [&](int worker) {
        for (unsigned i = worker; i < config->gridDim.x; i += cuda_on_host::kBlocksAtOnce)
            cuda_on_host::blocks_at_once[worker].run({i, 0, 0}, config->gridDim, config->blockDim, body);
    };
    std::vector<std::thread> workers;
    for (int i = 0; i < cuda_on_host::kBlocksAtOnce; ++i) workers.emplace_back(work, i);
    for (std::thread& worker : workers) worker.join();
    return cudaSuccess;
}

inline void __syncthreads() { cuda_on_host::this_block().arrive(cuda_on_host::this_block().of_all(), blockDim.x); }

inline unsigned __ballot_sync(unsigned mask, bool predicate) {
    unsigned bits = 0, bit = 1;
    for (const std::uint32_t lane : cuda_on_host::exchange(mask, predicate)) {
        if (lane != 0) bits |= bit;
        bit <<= 1;
    }
    return bits;
}
inline unsigned __reduce_max_sync(unsigned mask, unsigned value) {
    const auto lanes = cuda_on_host::exchange(mask, value);
    return *std::max_element(lanes.begin(), lanes.end());
}

template <typename T>
T atomicAdd(T* place, std::type_identity_t<T> value) {
    return cuda_on_host::atomically(place, [value](T before) { return before + value; });
}
template <typename T>
T atomicMin(T* place, std::type_identity_t<T> value) {
    return cuda_on_host::atomically(place, [value](T before) { return before < value ? before : value; });
}
template <typename T>
T atomicMax(T* place, std::type_identity_t<T> value) {
    return cuda_on_host::atomically(place, [value](T before) { return before > value ? before : value; });
}
inline unsigned __ldcg(const unsigned* place) {
    cuda_on_host::this_block().maybe_pause();
    return __atomic_load_n(place, __ATOMIC_RELAXED);
}
inline void __stcg(unsigned* place, unsigned value) {
    cuda_on_host::this_block().maybe_pause();
    __atomic_store_n(place, value, __ATOMIC_RELAXED);
}

template <typename A, typename B>
constexpr std::common_type_t<A, B> min(A a, B b) {
    return b < a ? b : a;
}
template <typename A, typename B>
constexpr std::common_type_t<A, B> max(A a, B b) {
    return a < b ? b : a;
}
using std::isfinite;
inline int __popc(unsigned bits) { return std::popcount(bits); }
inline int __ffs(int bits) { return __builtin_ffs(bits); }
inline int __ffsll(long long bits) { return __builtin_ffsll(bits); }
inline int __clzll(long long bits) { return std::countl_zero(static_cast<unsigned long long>(bits)); }
inline unsigned __float_as_uint(float x) { return std::bit_cast<unsigned>(x); }
inline float __uint_as_float(unsigned bits) { return std::bit_cast<float>(bits); }
inline long long __double_as_longlong(double x) { return std::bit_cast<long long>(x); }
