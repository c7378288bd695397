"""Compiles the Triton kernels for GPUs that need not be here; prints registers, spills and shared memory as JSON.

python tests/kernels/compile_triton_kernels.py > tests/kernels/triton_registers.json

What is compiled is what the ops launch: their Triton functions run on tensors without data, and every launch is written
down, with its types and constants, instead of carried out.
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from types import ModuleType
from typing import Any

import torch
import triton
from torch import Tensor
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lesionforge.kernels.map_leakage import _triton as leakage
from lesionforge.kernels.map_refinement import _triton as refinement
from lesionforge.kernels.norm_act_conv import _triton as convolution

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
DTYPES = {"fp32": torch.float32, "fp16": torch.float16, "bf16": torch.bfloat16, "i32": torch.int32, "u8": torch.uint8}
CAPABILITIES = (80, 90)
# The commonest head, and the widest whose tiles spill nothing.
HEADS = (("bf16", 64), ("bf16", 256), ("fp32", 64), ("fp32", 128))
Launch = tuple[Any, tuple, dict]
empty: Callable[..., Tensor] = partial(torch.empty, device="meta")


class Launches:
    """Stands in for an op's kernels: `launches.kernel[grid](...)` is kept as the launch "kernel label"."""

    def __init__(self, module: ModuleType) -> None:
        self.kernels, self.label = module.kernels(), ""
        self.kept: dict[str, Launch] = {}
        module.kernels = lambda: self

    def __getattr__(self, name: str) -> Any:
        launches = self

        class Kernel:
            def __getitem__(self, grid: tuple) -> Callable[..., None]:
                return launches.keep(name)

        return Kernel()

    def keep(self, name: str) -> Callable[..., None]:
        def kept(*given: Any, **options: Any) -> None:
            self.kept[f"{name} {self.label}"] = getattr(self.kernels, name), given, options

        return kept


def attention_refinement() -> dict[str, Launch]:
    made = Launches(refinement)
    for name, depth in HEADS:
        query, key = empty((2, 2, 8, 4096, depth), dtype=DTYPES[name])
        made.label = f"{name} {depth} channels"
        refinement.mean_attention(query, key, empty(2, 4096, 1), 0.1)
        refinement.mean_map(query[0], key[0], 0.1, empty(4096, 4096))
        if depth == 64:
            made.label += " 4 columns"
            refinement.mean_attention(query, key, empty(2, 4096, 4), 0.1)
    return made.kept


def attention_leakage() -> dict[str, Launch]:
    made = Launches(leakage)
    for name, depth in HEADS:
        made.label = f"{name} {depth} channels"
        query, key = empty((2, 2, 8, 4096, depth), dtype=DTYPES[name])
        leakage.row_sums(query, key, empty(2, 4096), True, 0.1, torch.empty_like(query), torch.empty_like(query))
    return made.kept


def norm_act_conv2d() -> dict[str, Launch]:
    made = Launches(convolution)
    last = torch.channels_last
    for name, dilations in (("bf16", (1, 2, 4)), ("fp32", (2,))):
        dtype = DTYPES[name]
        x, residual = (empty((8, 128, 64, 64), dtype=dtype, memory_format=last) for _ in range(2))
        weight, (gamma, beta, bias) = empty((128, 128, 3, 3), dtype=dtype), empty((3, 128), dtype=dtype)
        shift = empty((8, 128), dtype=dtype)
        made.label = name
        convolution.group_norm_silu(x, gamma, beta, 32, 1e-5)
        convolution.add_shift_residual_(x, shift, residual)
        for dilation in dilations:
            made.label = f"{name} dilation {dilation}"
            convolution.dilated_conv2d(x, weight, bias, shift, residual, dilation)
    return made.kept


def resources(launch: Launch, capability: int) -> dict[str, int]:
    kernel, given, options = launch
    arguments = dict(zip(kernel.arg_names, given, strict=False))
    constants = {name: options[name] for name in kernel.arg_names if name not in arguments}
    # A launch makes a constant of every 1, and tells the compiler which addresses and numbers are divisible by 16.
    constants |= {name: 1 for name, value in arguments.items() if isinstance(value, int) and value == 1}
    types = {name: _type(value) for name, value in arguments.items()} | dict.fromkeys(constants, "constexpr")
    aligned = [i for i, (name, value) in enumerate(arguments.items()) if types[name] != "fp32" and _aligned(value)]
    source = ASTSource(kernel, types, constants, {(i,): [["tt.divisibility", 16]] for i in aligned})
    chosen = {name: value for name, value in options.items() if name not in constants}
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options=chosen)
    with tempfile.TemporaryDirectory() as folder:
        cubin = Path(folder, "kernel.cubin")
        cubin.write_bytes(made.asm["cubin"])
        usage = subprocess.run([CUOBJDUMP, "-res-usage", cubin], check=True, capture_output=True, text=True).stdout
    used = {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL):(\d+)", usage)}
    return {
        "registers": used["REG"],
        "spilled_bytes": used["STACK"] + used["LOCAL"],
        "shared_bytes": made.metadata.shared,
    }


def _type(value: Any) -> str:
    if isinstance(value, Tensor):
        return "*" + next(name for name, dtype in DTYPES.items() if dtype == value.dtype)
    return "fp32" if isinstance(value, float) else "i32"


def _aligned(value: Any) -> bool:
    return isinstance(value, Tensor) or value % 16 == 0


def main() -> None:
    # By default float32 convolutions are TF32.
    torch.backends.cudnn.conv.fp32_precision = "ieee"  # pyright: ignore[reportAttributeAccessIssue]
    launches = attention_leakage() | attention_refinement() | norm_act_conv2d()
    found = {
        f"{name} sm_{capability}": resources(launch, capability)
        for capability in CAPABILITIES
        for name, launch in launches.items()
    }
    print(json.dumps({"triton": triton.__version__, "kernels": found}, indent=1))


if __name__ == "__main__":
    main()
