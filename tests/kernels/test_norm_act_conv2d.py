from __future__ import annotations

import logging

import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

from lesionforge.kernels import BackendUnavailable, native, norm_act_conv2d
from lesionforge.kernels.norm_act_conv import _op, cpu, passes, reference

AVAILABLE = [str(row["backend"]) for row in _op.diagnose() if row["available"]]
needs_native = pytest.mark.skipif("cpu" not in AVAILABLE, reason="the native module is not built")
SETS = native.module().norm_act_conv2d_instruction_sets() if "cpu" in AVAILABLE else []
DEVICE = {"triton": "cuda", "triton_conv": "cuda"}
DTYPES = {"reference": (torch.float64, torch.float32, torch.bfloat16)}
SERVED = [(name, dtype) for name in AVAILABLE for dtype in DTYPES.get(name, (torch.float32, torch.bfloat16))]
FUSED = [name for name in AVAILABLE if name != "reference"]
TOLERANCE = {torch.float64: 1e-11, torch.float32: 2e-4, torch.bfloat16: 0.06}
SHAPES = [(2, 8, 7, 9), (3, 6, 5, 1), (1, 1, 1, 1), (0, 4, 3, 3), (1, 66, 33, 40), (5, 20, 2, 3), (2, 16, 1, 130)]
LAYOUTS = ["contiguous", "channels_last", "strided", "expanded"]


@pytest.fixture(autouse=True)
def computed_on_one_thread(one_thread: None) -> None:
    pass


@pytest.fixture(params=AVAILABLE)
def backend(request: pytest.FixtureRequest) -> str:
    return request.param


def case(
    shape: tuple[int, ...], groups: int, outputs: int = 5, *, dtype=torch.float32, device: str = "cpu", seed: int = 0
) -> dict:
    rng = torch.Generator().manual_seed(seed)
    cases, channels, height, width = shape

    def draw(*size: int) -> Tensor:
        return torch.randn(size, generator=rng).to(device, dtype)

    return {
        "x": draw(*shape) * 2 + 3,
        "gamma": draw(channels),
        "beta": draw(channels),
        "weight": draw(outputs, channels, 3, 3) / (3 * channels**0.5),
        "bias": draw(outputs),
        "groups": groups,
        "shift": draw(cases, outputs),
        "residual": draw(cases, outputs, height, width),
    }


def laid_out(x: Tensor, layout: str) -> Tensor:
    if layout == "channels_last":
        return x.contiguous(memory_format=torch.channels_last)
    if layout == "strided":
        return torch.stack((x, x + 1), dim=-1)[..., 0].transpose(2, 3).contiguous().transpose(2, 3)
    return x[:, :, :1].expand_as(x) if layout == "expanded" else x


def by_definition(arguments: dict, dilation: int, eps: float = 1e-5) -> Tensor:
    """The formula in float64, written out without torch's group_norm, silu and padding."""
    wide = {k: v.double().cpu() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    x, groups = wide["x"], wide["groups"]
    parts = x.reshape(len(x), groups, x.shape[1:].numel() // groups)
    mean = parts.mean(dim=2, keepdim=True)
    variance = (parts - mean).square().mean(dim=2, keepdim=True)
    normal = ((parts - mean) / torch.sqrt(variance + eps)).reshape(x.shape)
    normal = normal * wide["gamma"][:, None, None] + wide["beta"][:, None, None]
    active = F.pad(normal / (1 + torch.exp(-normal)), (dilation,) * 4)
    height, width = x.shape[2:]
    y = wide["bias"][None, :, None, None] if wide["bias"] is not None else 0
    for i in range(3):
        for j in range(3):
            window = active[:, :, i * dilation : i * dilation + height, j * dilation : j * dilation + width]
            y = y + torch.einsum("bchw,dc->bdhw", window, wide["weight"][:, :, i, j])
    y = y if wide["shift"] is None else y + wide["shift"][:, :, None, None]
    return y if wide["residual"] is None else y + wide["residual"]


@pytest.fixture
def poisoned(monkeypatch: pytest.MonkeyPatch) -> None:
    """Fresh memory is NaN, so that a number nobody wrote shows."""
    empty_like = torch.empty_like
    monkeypatch.setattr(torch, "empty_like", lambda *a, **k: empty_like(*a, **k).fill_(float("nan")))


@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize(("backend", "dtype"), SERVED, ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_every_backend_dtype_shape_and_layout_follows_the_definition(backend, dtype, layout, shape) -> None:
    arguments = case(shape, 2 if shape[1] % 2 == 0 else 1, dtype=dtype, device=DEVICE.get(backend, "cpu"))
    arguments["x"] = laid_out(arguments["x"], layout)
    arguments["residual"] = laid_out(arguments["residual"], layout)
    for dilation in (1, 2, 4):
        made = norm_act_conv2d(**arguments, dilation=dilation, backend=backend)
        assert made.dtype == dtype
        expected = by_definition(arguments, dilation)
        torch.testing.assert_close(made.double().cpu(), expected, atol=TOLERANCE[dtype], rtol=TOLERANCE[dtype])


@pytest.mark.parametrize("left_out", [("shift",), ("residual",), ("shift", "residual"), ("bias", "shift"), ("bias",)])
def test_what_is_left_out_is_not_added(backend, left_out) -> None:
    arguments = case((2, 8, 5, 6), 4, device=DEVICE.get(backend, "cpu")) | dict.fromkeys(left_out)
    made = norm_act_conv2d(**arguments, backend=backend)
    torch.testing.assert_close(made.double().cpu(), by_definition(arguments, 1), atol=2e-5, rtol=1e-4)


def test_channels_last_stays_and_inputs_are_untouched(backend) -> None:
    arguments = case((2, 8, 5, 6), 4, outputs=8, device=DEVICE.get(backend, "cpu"))
    for layout in (torch.channels_last, torch.contiguous_format):
        given = {k: v.contiguous(memory_format=layout) if k in ("x", "residual") else v for k, v in arguments.items()}
        before = {k: v.clone() for k, v in given.items() if isinstance(v, Tensor)}
        made = norm_act_conv2d(**given, backend=backend)
        assert made.is_contiguous(memory_format=layout)
        assert all(torch.equal(given[name], value) for name, value in before.items())


@pytest.mark.parametrize("layout", [torch.channels_last, torch.contiguous_format], ids=str)
@pytest.mark.parametrize("backend", FUSED)
def test_an_outlier_in_a_corner_does_not_lose_the_variance(backend, layout) -> None:
    device = DEVICE.get(backend, "cpu")
    x = torch.randn(1, 8, 64, 64, generator=torch.Generator().manual_seed(0))
    x[:, :, 0, 0] = 1e3
    x, gamma, beta = x.to(device).contiguous(memory_format=layout), torch.ones(8).to(device), torch.zeros(8).to(device)
    made = passes.group_norm_silu(x, gamma, beta, 4, 1e-5, backend.removesuffix("_conv"))
    true = torch.nn.functional.silu(torch.group_norm(x.double(), 4, gamma.double(), beta.double(), 1e-5))
    torch.testing.assert_close(made.double(), true, rtol=4e-6, atol=4e-6)


@pytest.mark.parametrize("backend", FUSED)
def test_large_mean_and_constant_maps_do_not_lose_the_variance(backend) -> None:
    arguments = case((2, 8, 16, 16), 2, device=DEVICE.get(backend, "cpu"))
    arguments["x"] = arguments["x"] + 1e4
    error = (norm_act_conv2d(**arguments, backend=backend).double().cpu() - by_definition(arguments, 1)).abs().max()
    assert error < 5e-2  # x itself has only 3 to 4 digits after the point there
    arguments["x"] = torch.full_like(arguments["x"], 7.0)
    made = norm_act_conv2d(**arguments, backend=backend)
    torch.testing.assert_close(made.double().cpu(), by_definition(arguments, 1), atol=2e-5, rtol=1e-4)


def test_not_finite_comes_out_not_finite(backend) -> None:
    arguments = case((3, 8, 4, 4), 2, device=DEVICE.get(backend, "cpu"))
    arguments["x"][0, 0, 0, 0], arguments["x"][1, 0, 0, 0] = float("nan"), float("inf")
    made = norm_act_conv2d(**arguments, backend=backend)
    assert made[0].isnan().any() and made[1].isnan().any() and made[2].isfinite().all()


@needs_native
@pytest.mark.usefixtures("poisoned")
@pytest.mark.parametrize("instruction_set", SETS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("channels_last", [True, False])
@pytest.mark.parametrize("shape", [(2, 8, 7, 9), (1, 3, 200, 331), (3, 130, 17, 16), (1, 40000, 1, 2)], ids=str)
def test_both_passes_on_every_instruction_set(instruction_set, dtype, channels_last, shape) -> None:
    arguments = case(shape, 1, 1, dtype=dtype)
    layout = torch.channels_last if channels_last else torch.contiguous_format
    x = arguments["x"].contiguous(memory_format=layout)
    gamma, beta = arguments["gamma"], arguments["beta"]
    tolerance = 4e-6 if dtype == torch.float32 else 2**-8
    made = cpu.group_norm_silu(x, gamma, beta, 1, 1e-5, instruction_set=instruction_set)
    expected = reference.group_norm_silu(x.double(), gamma.double(), beta.double(), 1, 1e-5)
    torch.testing.assert_close(made.double(), expected, atol=tolerance, rtol=tolerance)
    y, shift, residual = x.clone(memory_format=layout), torch.randn(shape[:2]), x.flip(2)
    cpu.add_shift_residual_(y, shift, residual, instruction_set=instruction_set)
    assert torch.equal(y, (x.float() + shift[:, :, None, None] + residual.float()).to(dtype))


@needs_native
def test_bits_depend_on_neither_threads_nor_neighbours() -> None:
    rng = torch.Generator().manual_seed(3)
    x = torch.randn(5, 24, 80, 81, generator=rng)
    gamma, beta = torch.randn(2, 24, generator=rng)
    for layout in (torch.channels_last, torch.contiguous_format):
        given = x.contiguous(memory_format=layout)
        alone = cpu.group_norm_silu(given[2:3].clone(memory_format=layout), gamma, beta, 6, 1e-5)
        for threads in (1, 2, 3, 7):
            torch.set_num_threads(threads)
            assert torch.equal(cpu.group_norm_silu(given, gamma, beta, 6, 1e-5)[2:3], alone)


@needs_native
@settings(deadline=None, max_examples=40)
@given(
    shape=st.tuples(st.integers(0, 3), st.integers(1, 4), st.integers(1, 6), st.integers(1, 7)),
    width=st.integers(1, 5),
    outputs=st.integers(1, 6),
    dilation=st.integers(1, 5),
    layout=st.sampled_from(LAYOUTS),
)
def test_native_is_the_reference(shape, width, outputs, dilation, layout) -> None:
    cases, groups, height, columns = shape
    arguments = case((cases, groups * width, height, columns), groups, outputs)
    arguments["x"] = laid_out(arguments["x"], layout)
    wide = {k: v.double() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    expected = norm_act_conv2d(**wide, eps=1e-3, dilation=dilation, backend="reference")
    made = norm_act_conv2d(**arguments, eps=1e-3, dilation=dilation, backend="cpu")
    torch.testing.assert_close(made.double(), expected, atol=1e-4, rtol=1e-4)


def test_reference_gradients_in_float64() -> None:
    arguments = case((2, 4, 3, 4), 2, 3, dtype=torch.float64)
    names = [name for name, value in arguments.items() if isinstance(value, Tensor)]
    inputs = [arguments[name].requires_grad_() for name in names]

    def work(*tensors: Tensor) -> Tensor:
        return norm_act_conv2d(**{**arguments, **dict(zip(names, tensors, strict=True))}, dilation=2)

    assert torch.autograd.gradcheck(work, inputs)


@pytest.mark.parametrize("backend", FUSED)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_gradients_of_every_backend(backend, layout) -> None:
    arguments = case((2, 8, 6, 5), 4, 8, device=DEVICE.get(backend, "cpu"))
    arguments["x"] = arguments["x"].contiguous(memory_format=layout)
    narrow = {k: v.requires_grad_() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    wide = {k: v.detach().double().requires_grad_() if isinstance(v, Tensor) else v for k, v in arguments.items()}
    for inputs, name in ((narrow, backend), (wide, "reference")):
        norm_act_conv2d(**inputs, dilation=2, backend=name).square().sum().backward()
    for name, value in narrow.items():
        if isinstance(value, Tensor):
            torch.testing.assert_close(value.grad.double(), wide[name].grad, atol=1e-3, rtol=1e-3, msg=name)


@needs_native
def test_automatic_choice(caplog: pytest.LogCaptureFixture) -> None:
    arguments = case((1, 4, 9, 8), 2)
    tensors = [value for value in arguments.values() if isinstance(value, Tensor)]
    assert _op.choose("auto", *tensors).name == "cpu"
    assert _op.choose("auto", *(tensor.double() for tensor in tensors)).name == "reference"
    _op._announced.clear()
    tensors[3].requires_grad_()
    with caplog.at_level(logging.INFO, logger="lesionforge.kernels"):
        assert _op.choose("auto", *tensors).name == "reference"
    assert "cpu: a gradient is wanted" in caplog.text
    with torch.no_grad():
        assert _op.choose("auto", *tensors).name == "cpu"
    assert _op.choose("cpu", *tensors).name == "cpu"


@needs_native
def test_small_maps_are_left_to_plain_torch() -> None:
    tensors = [value for value in case((2, 4, 8, 8), 2).values() if isinstance(value, Tensor)]
    assert _op.choose("auto", *tensors).name == "reference"
    assert "at most 64 pixels" in str(_op.backends["cpu"].reservation(*tensors))
    assert _op.choose("cpu", *tensors).name == "cpu"


def test_triton_is_never_chosen_unasked() -> None:
    for name in ("triton", "triton_conv"):
        assert "by name only" in str(_op.backends[name].reservation())


def test_autocast_is_defined(backend) -> None:
    device = DEVICE.get(backend, "cpu")
    arguments = case((2, 8, 6, 5), 4, 8, device=device)
    with torch.no_grad(), torch.autocast(device, dtype=torch.bfloat16):
        made = norm_act_conv2d(**arguments, backend=backend)
        narrow = {k: v.bfloat16() if k in ("x", "shift", "residual") else v for k, v in arguments.items()}
        again = norm_act_conv2d(**narrow, backend=backend)
    assert made.dtype == again.dtype == torch.bfloat16
    expected = by_definition(arguments, 1)
    for result in (made, again):
        torch.testing.assert_close(result.double().cpu(), expected, atol=0.06, rtol=0.06)


@needs_native
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16], ids=str)
@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last], ids=str)
def test_operators_pass_opcheck(dtype, layout) -> None:
    arguments = case((2, 8, 5, 3), 4, 8, dtype=dtype)
    x = arguments["x"].contiguous(memory_format=layout).requires_grad_()
    gamma, beta = arguments["gamma"].requires_grad_(), arguments["beta"].requires_grad_()
    torch.library.opcheck(passes.group_norm_silu, (x, gamma, beta, 4, 1e-5, "cpu"))
    y = arguments["residual"].contiguous(memory_format=layout)
    torch.library.opcheck(passes.add_shift_residual_, (y, arguments["shift"], y.clone(), "cpu"))
    torch.library.opcheck(passes.add_shift_residual_, (y, None, y.clone(), "cpu"))


@pytest.mark.parametrize("wanted", ["auto", *AVAILABLE])
@pytest.mark.parametrize("gradients", [False, True])
def test_torch_compile_sees_one_graph(wanted: str, gradients: bool) -> None:
    arguments = case((2, 8, 6, 5), 4, 8, device=DEVICE.get(wanted, "cpu"))
    arguments["weight"].requires_grad_(gradients)
    compiled = torch.compile(norm_act_conv2d, fullgraph=True, backend="aot_eager")
    with torch.set_grad_enabled(gradients):
        made = compiled(**arguments, dilation=2, backend=wanted)
    torch.testing.assert_close(made.detach().double().cpu(), by_definition(arguments, 2).detach(), atol=1e-4, rtol=1e-4)
    if gradients:
        made.square().sum().backward()
        assert arguments["weight"].grad.isfinite().all()


@needs_native
def test_operators_called_by_themselves_refuse_what_they_cannot_read() -> None:
    x, one = torch.zeros(1, 2, 3, 3, dtype=torch.float64), torch.ones(2, dtype=torch.float64)
    with pytest.raises(ValueError, match=r"float32 and bfloat16, not torch\.float64"):
        torch.ops.lesionforge.group_norm_silu(x, one, one, 1, 1e-5, "cpu")
    with pytest.raises(ValueError, match="contiguous or channels-last"):
        torch.ops.lesionforge.add_shift_residual_(torch.zeros(1, 2, 3, 4)[..., ::2], None, None, "cpu")
    with pytest.raises(ValueError, match="instruction set sse9 cannot run here"):
        cpu.group_norm_silu(x.float(), one, one, 1, 1e-5, instruction_set="sse9")


@needs_native
def test_a_backend_asked_for_by_name_says_why_not() -> None:
    with pytest.raises(BackendUnavailable, match="float32 and bfloat16"):
        norm_act_conv2d(**case((1, 4, 3, 3), 2, dtype=torch.float64), backend="cpu")
