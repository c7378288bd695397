// Python bindings of the native kernels. Arrays arrive as addresses: kernels/*/cpu.py checks shape, dtype and layout.
#include <pybind11/pybind11.h>

#include <cstdint>

#include "seeded_noise.hpp"

namespace py = pybind11;

namespace {

template <typename T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

using Noise = void (*)(const std::uint64_t*, float*, std::int64_t, std::int64_t, std::uint32_t, std::uint32_t, int);

template <Noise noise>
void bind_noise(py::module_& module, const char* name) {
    module.def(
        name,
        [](std::uintptr_t seeds, std::uintptr_t out, std::int64_t cases, std::int64_t count, std::uint32_t step,
           std::uint32_t stream, int threads) {
            noise(pointer<const std::uint64_t>(seeds), pointer<float>(out), cases, count, step, stream, threads);
        },
        py::arg("seeds"), py::arg("out"), py::arg("cases"), py::arg("count"), py::arg("step"), py::arg("stream"),
        py::arg("threads"), py::call_guard<py::gil_scoped_release>());
}

}  // namespace

PYBIND11_MODULE(_native, module) {
    module.def(
        "philox_u32",
        [](std::uintptr_t key, std::uintptr_t counter, std::uintptr_t out, std::int64_t n, int threads) {
            lesionforge::philox_u32(pointer<const std::int64_t>(key), pointer<const std::int64_t>(counter),
                                    pointer<std::int64_t>(out), n, threads);
        },
        py::arg("key"), py::arg("counter"), py::arg("out"), py::arg("n"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());
    bind_noise<lesionforge::seeded_normal>(module, "seeded_normal");
    bind_noise<lesionforge::seeded_uniform>(module, "seeded_uniform");
}
