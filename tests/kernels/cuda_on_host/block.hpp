// Blocks of CUDA threads as fibers of a thread of the CPU.
//
// Within a block one fiber runs at a time, in an order drawn anew for each round, until it reaches a barrier, ends or, now
// and then, at an atomic operation: so the threads of a block meet in many orders. Shared memory keeps what the block
// before left. The sanitizers for addresses and for threads know the fibers, and for the latter barriers alone order them:
// it reports a missing one, within a block as between the two that run at once.
#pragma once

#include <ucontext.h>

#include <array>
#include <atomic>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <functional>
#include <memory>
#include <vector>

#if defined(__SANITIZE_ADDRESS__)
#include <sanitizer/common_interface_defs.h>
#endif
#if defined(__SANITIZE_THREAD__)
#include <sanitizer/tsan_interface.h>
#endif

struct dim3 {
    unsigned x = 1, y = 1, z = 1;
};

namespace cuda_on_host {

// What scheduler and fibers tell each other must not look to the thread sanitizer like an order of the kernel's own.
template <typename T>
class Relaxed {
public:
    constexpr Relaxed(T value = {}) : value_(value) {}
    Relaxed(const Relaxed& other) : value_(T(other)) {}
    Relaxed& operator=(const Relaxed& other) {
        value_.store(other, std::memory_order_relaxed);
        return *this;
    }
    operator T() const { return value_.load(std::memory_order_relaxed); }

private:
    std::atomic<T> value_;
};

struct ThreadIndex {
    Relaxed<unsigned> x;
};

}  // namespace cuda_on_host

inline thread_local cuda_on_host::ThreadIndex threadIdx;
inline thread_local dim3 blockIdx, blockDim, gridDim;

namespace cuda_on_host {

constexpr unsigned kWarpSize = 32;
constexpr std::size_t kStack = 128 * 1024;

[[noreturn]] inline void fail(const char* what) {
    std::fprintf(stderr, "cuda_on_host: %s\n", what);
    std::abort();
}

struct Barrier {
    Relaxed<unsigned> arrived, generation;
    std::array<std::uint32_t, kWarpSize> lanes{};  // what the lanes of a warp bring to it
};

struct Fiber {
    ucontext_t context{};
    std::unique_ptr<char[]> stack = std::make_unique_for_overwrite<char[]>(kStack);
    unsigned thread = 0;
    Relaxed<bool> done = true;
    Relaxed<const Barrier*> gate;  // it waits while this is of generation `seen`
    Relaxed<unsigned> seen;
    void* sanitized = nullptr;
    void* fake_stack = nullptr;

    bool ready() const {
        const Barrier* const barrier = gate;
        return !done && (barrier == nullptr || barrier->generation != seen);
    }
};

class Block {
public:
    void run(dim3 number, dim3 grid, dim3 size, const std::function<void()>& body);
    void arrive(Barrier& barrier, unsigned expected);
    void maybe_pause() {
        if (draw() % 4 == 0) leave();
    }
    Barrier& of_all() { return all_; }
    Barrier& of_warp() { return warps_[threadIdx.x / kWarpSize]; }

private:
    static void enter();
    void prepare(Fiber& fiber, unsigned number);
    void resume(Fiber& fiber);
    void leave();
    std::uint32_t draw() {
        state_ = state_ * 6364136223846793005u + 1442695040888963407u;
        return static_cast<std::uint32_t>(state_ >> 33);
    }

    std::vector<Fiber> fibers_;
    std::vector<Barrier> warps_;
    Barrier all_;
    unsigned threads_ = 0;
    Relaxed<Fiber*> running_;
    const std::function<void()>* body_ = nullptr;
    ucontext_t scheduler_{};
    Relaxed<void*> scheduler_sanitized_;
    const void* scheduler_stack_ = nullptr;
    std::size_t scheduler_stack_size_ = 0;
    Relaxed<std::uint64_t> state_ = 1;
    char begin_ = 0, end_ = 0;  // what is done before a block and after it is ordered by these
};

inline thread_local Relaxed<Block*> current;
inline Block& this_block() { return *static_cast<Block*>(current); }

inline void acquire([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
    __tsan_acquire(address);
#endif
}

inline void release([[maybe_unused]] void* address) {
#if defined(__SANITIZE_THREAD__)
    __tsan_release(address);
#endif
}

inline void Block::run(dim3 number, dim3 grid, dim3 size, const std::function<void()>& body) {
    if (size.x % kWarpSize != 0) fail("a block is no whole number of warps");
    current = this;
    blockIdx = number;
    gridDim = grid;
    blockDim = size;
    body_ = &body;
    threads_ = size.x;
    if (fibers_.size() < threads_) fibers_ = std::vector<Fiber>(threads_);
    warps_.assign(threads_ / kWarpSize, {});
    all_ = {};
    for (unsigned i = 0; i < threads_; ++i) prepare(fibers_[i], i);
#if defined(__SANITIZE_THREAD__)
    scheduler_sanitized_ = __tsan_get_current_fiber();
#endif
    release(&begin_);
    for (unsigned left = threads_; left != 0;) {
        bool moved = false;
        const unsigned first = draw() % threads_, step = draw() % 2 != 0 ? 1 : threads_ - 1;
        for (unsigned i = 0; i < threads_; ++i) {
            Fiber& fiber = fibers_[(first + i * step) % threads_];
            if (!fiber.ready()) continue;
            resume(fiber);
            moved = true;
            left -= fiber.done ? 1 : 0;
        }
        if (!moved) fail("threads wait at a barrier that others never reach");
    }
    acquire(&end_);
}

inline void Block::prepare(Fiber& fiber, unsigned number) {
    getcontext(&fiber.context);
    fiber.context.uc_stack.ss_sp = fiber.stack.get();
    fiber.context.uc_stack.ss_size = kStack;
    fiber.context.uc_link = nullptr;
    makecontext(&fiber.context, &Block::enter, 0);
    fiber.thread = number;
    fiber.done = false;
    fiber.gate = nullptr;
    fiber.fake_stack = nullptr;
#if defined(__SANITIZE_THREAD__)
    if (fiber.sanitized == nullptr) fiber.sanitized = __tsan_create_fiber(0);
#endif
}

inline void Block::enter() {
    Block& block = this_block();
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(nullptr, &block.scheduler_stack_, &block.scheduler_stack_size_);
#endif
    acquire(&block.begin_);
    (*block.body_)();
    Fiber* const fiber = block.running_;
    fiber->done = true;
    release(&block.end_);
    block.leave();
}

inline void Block::resume(Fiber& fiber) {
    running_ = &fiber;
    threadIdx.x = fiber.thread;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(fiber.sanitized, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    void* fake_stack = nullptr;
    __sanitizer_start_switch_fiber(&fake_stack, fiber.stack.get(), kStack);
#endif
    swapcontext(&scheduler_, &fiber.context);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fake_stack, nullptr, nullptr);
#endif
}

inline void Block::leave() {
    Fiber& fiber = *running_;
#if defined(__SANITIZE_THREAD__)
    __tsan_switch_to_fiber(scheduler_sanitized_, __tsan_switch_to_fiber_no_sync);
#endif
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_start_switch_fiber(fiber.done ? nullptr : &fiber.fake_stack, scheduler_stack_, scheduler_stack_size_);
#endif
    swapcontext(&fiber.context, &scheduler_);
#if defined(__SANITIZE_ADDRESS__)
    __sanitizer_finish_switch_fiber(fiber.fake_stack, &scheduler_stack_, &scheduler_stack_size_);
#endif
}

inline void Block::arrive(Barrier& barrier, unsigned expected) {
    release(&barrier);
    Fiber& fiber = *running_;
    barrier.arrived = barrier.arrived + 1;
    if (barrier.arrived == expected) {
        barrier.arrived = 0;
        barrier.generation = barrier.generation + 1;
    } else {
        fiber.seen = barrier.generation;
        fiber.gate = &barrier;
        leave();
        fiber.gate = nullptr;
    }
    acquire(&barrier);
}

}  // namespace cuda_on_host
