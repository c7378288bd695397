// One stream of one device: what is launched on it runs in order, and the first error is kept.
#pragma once

#include <cuda_runtime.h>

#include <climits>
#include <cstddef>
#include <cstdint>

#if defined(_WIN32)
#define LESIONFORGE_EXPORT extern "C" __declspec(dllexport)
#else
#define LESIONFORGE_EXPORT extern "C" __attribute__((visibility("default")))
#endif

namespace lesionforge::cuda {

constexpr int kThreads = 256;  // of every block
constexpr int kWarp = 32;
constexpr int kWarps = kThreads / kWarp;
constexpr unsigned kAllLanes = 0xFFFFFFFFu;

constexpr std::int64_t blocks_for(std::int64_t threads) { return (threads + kThreads - 1) / kThreads; }

// Number of this thread in its grid.
__device__ inline std::int64_t thread_number() { return std::int64_t{blockIdx.x} * kThreads + threadIdx.x; }

class Stream {
public:
    Stream(int device, cudaStream_t stream) : stream_(stream), error_(cudaSetDevice(device)) {}

    template <typename... Parameters, typename... Arguments>
    void launch(std::int64_t blocks, void (*kernel)(Parameters...), Arguments... arguments) {
        if (error_ != cudaSuccess || blocks == 0) return;
        if (blocks > INT_MAX) {
            error_ = cudaErrorInvalidConfiguration;
            return;
        }
        cudaLaunchConfig_t config{};
        config.gridDim = dim3(static_cast<unsigned>(blocks));
        config.blockDim = dim3(kThreads);
        config.stream = stream_;
        error_ = cudaLaunchKernelEx(&config, kernel, static_cast<Parameters>(arguments)...);
    }

    void zero(void* place, std::size_t bytes) {
        if (error_ == cudaSuccess && bytes != 0) error_ = cudaMemsetAsync(place, 0, bytes, stream_);
    }

    int error() const { return error_; }

private:
    cudaStream_t stream_;
    cudaError_t error_;
};

}  // namespace lesionforge::cuda
