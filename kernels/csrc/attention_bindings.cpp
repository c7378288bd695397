// Python bindings of attention.hpp; arrays arrive as addresses (0: none), checked in kernels/map_*/cpu.py.
#include <pybind11/pybind11.h>
#include <pybind11/stl.h>

#include <stdexcept>
#include <string>

#include "attention.hpp"
#include "attention_bindings.hpp"

namespace py = pybind11;

namespace lesionforge {
namespace {

template <typename T>
T* pointer(std::uintptr_t address) {
    return reinterpret_cast<T*>(address);
}

const AttentionKernels& kernels_for(const std::string& instructions, bool bfloat16) {
    const AttentionKernels& kernels = attention_kernels(instructions.c_str());
    if (bfloat16 && !kernels.bfloat16) throw std::invalid_argument(std::string(kernels.name) + " reads float32 only");
    return kernels;
}

void mean_attention(std::uintptr_t query, std::uintptr_t key, std::uintptr_t values, std::uintptr_t map,
                    std::uintptr_t out, std::int64_t heads, std::int64_t tokens, std::int64_t depth,
                    std::int64_t columns, float scale, int threads, bool bfloat16, const std::string& instructions) {
    kernels_for(instructions, bfloat16)
        .mean({pointer<const void>(query), pointer<const void>(key), pointer<const float>(values),
               pointer<float>(map), pointer<float>(out), heads, tokens, depth, columns, scale, threads, bfloat16});
}

void attention_leakage(std::uintptr_t query, std::uintptr_t key, std::uintptr_t rows, std::uintptr_t offsets,
                       std::uintptr_t values, std::uintptr_t sums, std::uintptr_t query_gradient,
                       std::uintptr_t key_gradient, std::int64_t cases, std::int64_t tasks_per_case,
                       std::int64_t heads, std::int64_t tokens, std::int64_t depth, float scale, int threads,
                       bool bfloat16, const std::string& instructions) {
    kernels_for(instructions, bfloat16)
        .leakage({pointer<const void>(query), pointer<const void>(key), pointer<const std::int64_t>(rows),
                  pointer<const std::int64_t>(offsets), pointer<const float>(values), pointer<double>(sums),
                  pointer<void>(query_gradient), pointer<void>(key_gradient), cases, tasks_per_case, heads, tokens,
                  depth, scale, threads, bfloat16});
}

void scale_leakage_gradients(std::uintptr_t of_query, std::uintptr_t of_key, std::uintptr_t by_row,
                             std::uintptr_t by_column, std::uintptr_t query_gradient, std::uintptr_t key_gradient,
                             std::int64_t cases, std::int64_t columns, std::int64_t heads, std::int64_t tokens,
                             std::int64_t depth, int threads, bool bfloat16, const std::string& instructions) {
    attention_kernels(instructions.c_str())
        .scale({pointer<const void>(of_query), pointer<const void>(of_key), pointer<const float>(by_row),
                pointer<const float>(by_column), pointer<void>(query_gradient), pointer<void>(key_gradient), cases,
                columns, heads, tokens, depth, threads, bfloat16});
}

}  // namespace

void bind_attention(py::module_& module) {
    module.def("mean_attention", &mean_attention, py::arg("query"), py::arg("key"), py::arg("values"), py::arg("map"),
               py::arg("out"), py::arg("heads"), py::arg("tokens"), py::arg("depth"), py::arg("columns"),
               py::arg("scale"), py::arg("threads"), py::arg("bfloat16"), py::arg("instructions"),
               py::call_guard<py::gil_scoped_release>());
    module.def("attention_leakage", &attention_leakage, py::arg("query"), py::arg("key"), py::arg("rows"),
               py::arg("offsets"), py::arg("values"), py::arg("sums"), py::arg("query_gradient"),
               py::arg("key_gradient"), py::arg("cases"), py::arg("tasks_per_case"), py::arg("heads"),
               py::arg("tokens"), py::arg("depth"), py::arg("scale"), py::arg("threads"), py::arg("bfloat16"),
               py::arg("instructions"),
               py::call_guard<py::gil_scoped_release>());
    module.def("scale_leakage_gradients", &scale_leakage_gradients, py::arg("of_query"), py::arg("of_key"),
               py::arg("by_row"), py::arg("by_column"), py::arg("query_gradient"), py::arg("key_gradient"),
               py::arg("cases"), py::arg("columns"), py::arg("heads"), py::arg("tokens"), py::arg("depth"),
               py::arg("threads"), py::arg("bfloat16"), py::arg("instructions"),
               py::call_guard<py::gil_scoped_release>());
    module.def("attention_instruction_sets", [] {
        std::vector<std::string> names;
        for (const char* name : {"amx", "avx512", "avx2", "generic"})
            if (has_attention_kernels(name)) names.emplace_back(name);
        return names;
    });
}

}  // namespace lesionforge
