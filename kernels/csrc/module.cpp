// Python bindings of the native kernels. Arrays arrive as addresses: kernels/*/cpu.py checks shape, dtype and layout.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "norm_act_conv2d.hpp"
#include "attention_bindings.hpp"
#include "mask_extraction.hpp"
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

lesionforge::Map map_of(std::int64_t cases, std::int64_t channels, std::int64_t pixels, bool channels_last,
                        bool bfloat16) {
    const auto dtype = bfloat16 ? lesionforge::Dtype::bfloat16 : lesionforge::Dtype::float32;
    return {cases, channels, pixels, channels_last, dtype};
}

void bind_norm_act_conv2d(py::module_& module) {
    module.def("norm_act_conv2d_instruction_sets", lesionforge::instruction_sets);
    module.def(
        "group_norm_silu",
        [](std::uintptr_t x, std::uintptr_t gamma, std::uintptr_t beta, std::uintptr_t out, std::int64_t cases,
           std::int64_t channels, std::int64_t pixels, bool channels_last, bool bfloat16, std::int64_t groups,
           double eps, const std::string& set, int threads) {
            lesionforge::group_norm_silu(pointer<const void>(x), pointer<const float>(gamma),
                                         pointer<const float>(beta), pointer<void>(out),
                                         map_of(cases, channels, pixels, channels_last, bfloat16), groups, eps,
                                         lesionforge::instruction_set(set), threads);
        },
        py::call_guard<py::gil_scoped_release>());
    module.def(
        "add_shift_residual",
        [](std::uintptr_t y, std::uintptr_t shift, std::uintptr_t residual, std::int64_t cases, std::int64_t channels,
           std::int64_t pixels, bool channels_last, bool bfloat16, const std::string& set, int threads) {
            lesionforge::add_shift_residual(pointer<void>(y), pointer<const float>(shift),
                                            pointer<const void>(residual),
                                            map_of(cases, channels, pixels, channels_last, bfloat16),
                                            lesionforge::instruction_set(set), threads);
        },
        py::call_guard<py::gil_scoped_release>());
}

void bind_mask_extraction(py::module_& module) {
    module.def(
        "otsu_threshold",
        [](std::uintptr_t maps, std::uintptr_t out, bool bytes, std::int64_t cases, std::int64_t pixels, int bins,
           int threads) {
            lesionforge::otsu_threshold(pointer<const void>(maps), pointer<void>(out), bytes, cases, pixels, bins,
                                        threads);
        },
        py::arg("maps"), py::arg("out"), py::arg("bytes"), py::arg("cases"), py::arg("pixels"), py::arg("bins"),
        py::arg("threads"), py::call_guard<py::gil_scoped_release>());
    module.def(
        "extract_masks",
        [](std::uintptr_t maps, std::uintptr_t out, bool bytes, std::int64_t cases, std::int64_t height,
           std::int64_t width, std::int64_t size, std::vector<int> half_widths, bool largest_component,
           std::vector<float> taps, int threads) {
            const lesionforge::MaskOptions options{height, width, size, std::move(half_widths), largest_component,
                                                   std::move(taps)};
            lesionforge::extract_masks(pointer<const void>(maps), pointer<float>(out), bytes, cases, options, threads);
        },
        py::arg("maps"), py::arg("out"), py::arg("bytes"), py::arg("cases"), py::arg("height"), py::arg("width"),
        py::arg("size"), py::arg("half_widths"), py::arg("largest_component"), py::arg("taps"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());
    module.def(
        "clean_masks",
        [](std::uintptr_t masks, std::uintptr_t out, std::int64_t cases, std::int64_t height, std::int64_t width,
           std::vector<int> half_widths, bool largest_component, int threads) {
            const lesionforge::CleanOptions options{height, width, std::move(half_widths), largest_component};
            lesionforge::clean_masks(pointer<const std::uint8_t>(masks), pointer<float>(out), cases, options, threads);
        },
        py::arg("masks"), py::arg("out"), py::arg("cases"), py::arg("height"), py::arg("width"),
        py::arg("half_widths"), py::arg("largest_component"), py::arg("threads"),
        py::call_guard<py::gil_scoped_release>());
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
    bind_norm_act_conv2d(module);
    bind_mask_extraction(module);
#if defined(LESIONFORGE_ATTENTION)
    lesionforge::bind_attention(module);
#endif
}
