#pragma once

#include <pybind11/pybind11.h>

namespace lesionforge {

void bind_attention(pybind11::module_& module);

}  // namespace lesionforge
