"""Compiles the Triton kernels of norm_act_conv2d for GPUs that need not be here; prints registers and spills as JSON.

python tests/kernels/compile_norm_act_conv2d.py > tests/kernels/norm_act_conv2d_registers.json
"""

from __future__ import annotations

import json
import re
import subprocess
import tempfile
from pathlib import Path

import triton
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from lesionforge.kernels.norm_act_conv import _triton, _triton_kernels

CUOBJDUMP = Path(triton.__file__).parent / "backends/nvidia/bin/cuobjdump"
GROUP_NORM = {"pointers": ("x", "gamma", "beta", "out"), "constants": {"BLOCK_C": 4, "BLOCK_P": 256}}
EPILOGUE = {
    "pointers": ("y", "shift", "residual"),
    "constants": {"CHANNELS_LAST": True, "HAS_SHIFT": True, "HAS_RESIDUAL": True, "BLOCK": _triton.BLOCK_FLAT},
}
CONVOLUTION = {
    "pointers": ("x", "weight", "bias", "shift", "residual", "out"),
    "constants": {
        "HAS_BIAS": True,
        "HAS_SHIFT": True,
        "HAS_RESIDUAL": True,
        "PRECISION": "ieee",
        "BLOCK_M": _triton.BLOCK_M,
        "BLOCK_N": _triton.BLOCK_N,
        "BLOCK_K": _triton.BLOCK_K,
    },
}


def variants() -> dict[str, tuple]:
    made = {f"group_norm_silu {t}": (_triton_kernels.group_norm_silu, GROUP_NORM, t, {}) for t in ("bf16", "fp32")}
    made["add_shift_residual bf16"] = (_triton_kernels.add_shift_residual, EPILOGUE, "bf16", {})
    for dtype, dilation in (("bf16", 1), ("bf16", 2), ("bf16", 4), ("fp16", 2), ("fp32", 2)):
        extra = {"DILATION": dilation}
        made[f"dilated_conv2d {dtype} dilation {dilation}"] = (
            _triton_kernels.dilated_conv2d,
            CONVOLUTION,
            dtype,
            extra,
        )
    return made


def resources(kernel, shape: dict, dtype: str, extra: dict, capability: int) -> dict[str, int]:
    constants = shape["constants"] | extra
    signature = {}
    for name in kernel.arg_names:
        number = "fp32" if name == "eps" else "i32"
        signature[name] = "constexpr" if name in constants else f"*{dtype}" if name in shape["pointers"] else number
    # A launch finds pointers and channels divisible by 16, as here.
    aligned = {
        (i,): [["tt.divisibility", 16]]
        for i, name in enumerate(kernel.arg_names)
        if name in (*shape["pointers"], "channels", "outputs", "of_pixel")
    }
    source = ASTSource(fn=kernel, signature=signature, constexprs=constants, attrs=aligned)
    made = triton.compile(source, target=GPUTarget("cuda", capability, 32), options={"num_warps": _triton.NUM_WARPS})
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


def main() -> None:
    found = {
        f"{name} sm_{capability}": resources(*variant, capability)
        for capability in (80, 90)
        for name, variant in variants().items()
    }
    print(json.dumps({"triton": triton.__version__, "kernels": found}, indent=1))


if __name__ == "__main__":
    main()
