"""Runs on a GPU, or under TRITON_INTERPRET=1 as test_triton.py runs it."""

from __future__ import annotations

import pytest
import torch

from lesionforge.kernels import norm_act_conv2d, triton_runtime
from lesionforge.kernels.norm_act_conv import passes

if (reason := triton_runtime.why_not()) is not None:
    pytest.skip(reason, allow_module_level=True)

TOLERANCE = {torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 8e-2}
layouts = pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)


def case(shape: tuple[int, ...], outputs: int, device: str, dtype: torch.dtype = torch.float32) -> dict:
    rng = torch.Generator().manual_seed(0)
    cases, channels, height, width = shape
    sizes = {
        "x": shape,
        "gamma": (channels,),
        "beta": (channels,),
        "weight": (outputs, channels, 3, 3),
        "bias": (outputs,),
        "shift": (cases, outputs),
        "residual": (cases, outputs, height, width),
    }
    made = {name: torch.randn(size, generator=rng) for name, size in sizes.items()}
    made["weight"] /= 3 * channels**0.5
    return {name: tensor.to(device, dtype) for name, tensor in made.items()}


def expected(arguments: dict, **settings) -> torch.Tensor:
    wide = {name: tensor.double() for name, tensor in arguments.items() if tensor is not None}
    return norm_act_conv2d(**{**dict.fromkeys(arguments), **wide}, **settings, backend="reference")


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("backend", ["triton", "triton_conv"])
@pytest.mark.parametrize("dilation", [1, 2, 4])
@pytest.mark.parametrize("shape", [(2, 8, 7, 9), (1, 66, 5, 4), (0, 4, 3, 3), (1, 4, 20, 17)], ids=str)
@layouts
def test_follows_the_reference(triton_device, triton_dtype, backend, dilation, shape, layout) -> None:
    arguments = case(shape, 5, triton_device, triton_dtype)
    arguments["x"] = arguments["x"].contiguous(memory_format=layout)
    made = norm_act_conv2d(**arguments, groups=2, dilation=dilation, backend=backend)
    assert made.dtype == triton_dtype and (not len(made) or made.is_contiguous(memory_format=layout))
    error = TOLERANCE[triton_dtype]
    torch.testing.assert_close(made.double(), expected(arguments, groups=2, dilation=dilation), atol=error, rtol=error)


@pytest.mark.parametrize("backend", ["triton", "triton_conv"])
@pytest.mark.parametrize("left_out", [("shift",), ("residual",), ("bias", "shift", "residual")])
def test_what_is_left_out_is_not_added(triton_device, backend, left_out) -> None:
    arguments = case((2, 8, 5, 6), 70, triton_device) | dict.fromkeys(left_out)
    made = norm_act_conv2d(**arguments, groups=4, backend=backend)
    torch.testing.assert_close(made.double(), expected(arguments, groups=4), atol=1e-4, rtol=1e-4)


def test_large_mean_keeps_the_variance_and_nan_stays_in_its_case(triton_device) -> None:
    arguments = case((2, 8, 16, 16), 5, triton_device)
    arguments["x"] += 1e4
    made = norm_act_conv2d(**arguments, groups=2, backend="triton")
    assert (made.double() - expected(arguments, groups=2)).abs().max() < 5e-2
    arguments["x"][0, 0, 0, 0] = float("nan")
    made = norm_act_conv2d(**arguments, groups=2, backend="triton_conv")
    assert made[0].isnan().any() and made[1].isfinite().all()


@pytest.mark.parametrize("backend", ["triton", "triton_conv"])
def test_gradients(triton_device, backend) -> None:
    arguments = case((2, 8, 6, 5), 8, triton_device)
    narrow = {name: tensor.requires_grad_() for name, tensor in arguments.items()}
    wide = {name: tensor.detach().double().requires_grad_() for name, tensor in arguments.items()}
    for inputs, name in ((narrow, backend), (wide, "reference")):
        norm_act_conv2d(**inputs, groups=4, dilation=2, backend=name).square().sum().backward()
    for name, tensor in narrow.items():
        torch.testing.assert_close(tensor.grad.double(), wide[name].grad, atol=1e-3, rtol=1e-3, msg=name)


def test_operators_pass_opcheck(triton_device) -> None:
    given = case((2, 8, 4, 3), 8, triton_device)
    x = given["x"].contiguous(memory_format=torch.channels_last).requires_grad_()
    weight, bias, shift, residual = (given[name].requires_grad_() for name in ("weight", "bias", "shift", "residual"))
    torch.library.opcheck(passes.dilated_conv2d, (x, weight, bias, shift, residual, 2))
    torch.library.opcheck(passes.dilated_conv2d, (x, weight, None, None, None, 1))
    torch.library.opcheck(passes.group_norm_silu, (x, given["gamma"], given["beta"], 4, 1e-5, "triton"))
    y = given["residual"].detach()
    torch.library.opcheck(passes.add_shift_residual_, (y, shift.detach(), y.clone(), "triton"))
