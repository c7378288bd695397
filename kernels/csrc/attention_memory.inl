// Scratch memory and whole numbers for the kernels of one instruction set; plain names without linkage, since what is
// shared between files could be linked from the wrong instruction set.
#pragma once
#include <cstdint>
#include <cstdlib>
#include <new>

namespace lesionforge {
namespace {

using std::int32_t;
using std::int64_t;

#define LESIONFORGE_INLINE inline __attribute__((always_inline))

LESIONFORGE_INLINE int64_t round_up(int64_t n, int64_t to) { return (n + to - 1) / to * to; }
constexpr float kLog2E = 1.44269504088896341f;

LESIONFORGE_INLINE int64_t least(int64_t a, int64_t b) { return a < b ? a : b; }

// Aligned scratch memory, not initialised.
class Scratch {
public:
    explicit Scratch(int64_t bytes)
        : data_(static_cast<char*>(std::aligned_alloc(64, static_cast<std::size_t>(round_up(bytes + 64, 64))))) {
        if (data_ == nullptr) throw std::bad_alloc();
    }
    ~Scratch() { std::free(data_); }
    Scratch(const Scratch&) = delete;
    Scratch& operator=(const Scratch&) = delete;
    template <typename T>
    T* as() const {
        return reinterpret_cast<T*>(data_);
    }

private:
    char* data_;
};

}  // namespace
}  // namespace lesionforge
