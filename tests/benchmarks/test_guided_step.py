"""The guided step: contenders that disagree are found out, and memory is told as autograd and the kernel see it."""

from __future__ import annotations

import sys

import pytest
import torch
from torch import nn

from lesionforge.benchmarks import guided_step, machine, tables
from lesionforge.benchmarks.guided_step import BENCHMARK, SMALL, Step, guided_step_case, larger_difference
from lesionforge.benchmarks.memory_use import memory_use
from lesionforge.core.context import Precision
from lesionforge.kernels.measuring import Disagreement, measure
from lesionforge.plugins.didgen.layout import DiDGenLoss

MIB = 2**20


def test_all_make_the_gradient_of_the_reference_method_and_ours_saves_less_an_image() -> None:
    shape = BENCHMARK.quick[0]
    found = guided_step_case(shape, "cpu").check()
    assert all(found[name].difference < 1e-4 for name in ("released", "SDPA rows", "lesionforge"))
    assert found["two-sided"].difference > 0.1
    saved = {name: trial.memory.saved_bytes for name, trial in found.items() if trial.memory}
    assert saved["lesionforge"] < shape.batch * saved["released"] / 2


def test_the_reference_method_saves_one_image_at_a_time_and_ours_all() -> None:
    def saved(name: str, batch: int) -> int:
        case = guided_step_case(Step(16, batch, "fp32", SMALL), "cpu")
        (run,) = (contender.run for contender in case.contenders if contender.name == name)
        assert case.memory is not None
        return case.memory(run)[1].saved_bytes

    assert saved("released", 3) == pytest.approx(saved("released", 1), rel=0.01)
    assert saved("lesionforge", 3) == pytest.approx(3 * saved("lesionforge", 1), rel=0.01)


@pytest.mark.parametrize(
    ("precision", "wrong"),
    [("fp32", DiDGenLoss("reference", use_self=False)), ("bf16", DiDGenLoss())],
    ids=["fp32, no L_SA", "bf16, two-sided"],
)
def test_another_loss_is_not_timed(precision: Precision, wrong: DiDGenLoss, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided_step, "SDPALoss", lambda: wrong)
    with pytest.raises(Disagreement, match="SDPA rows differs by"):
        guided_step_case(Step(16, 1, precision, SMALL), "cpu").check()


def test_move_and_noise_must_both_agree() -> None:
    truth = torch.ones(2, 3), torch.ones(2, 3)
    assert larger_difference((truth[0], 1.01 * truth[1]), truth) == pytest.approx(0.01, rel=1e-3)
    assert larger_difference((0.98 * truth[0], truth[1]), truth) == pytest.approx(0.02, rel=1e-3)
    for made in ((truth[0] * torch.nan, truth[1]), (truth[0], truth[1] * torch.nan)):
        assert not larger_difference(made, truth) <= 1e9


def test_an_image_is_the_same_in_any_batch() -> None:
    one, three = (guided_step.inputs_of(Step(16, batch, "fp32", SMALL), "cpu") for batch in (1, 3))
    assert torch.equal(one.latents[0], three.latents[0]) and torch.equal(one.states[:, 0], three.states[:, 0])
    assert not torch.equal(three.latents[0], three.latents[1])


def test_what_takes_a_cpu_minutes_is_held_against_the_first_image_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guided_step, "CPU_LATENTS", 16 * 16)
    case = guided_step_case(Step(16, 2, "fp32", SMALL), "cpu")
    assert [contender.name for contender in case.contenders] == ["SDPA rows", "lesionforge"]
    assert len(case.truth()[0]) == 1 and all(trial.difference < 1e-4 for trial in case.check().values())
    rows = measure(case, repetitions=1)
    assert all(row["vs_reference_method"] is None for row in rows)
    written = [{"benchmark": "guided_step", "aim": "", **row} for row in rows]
    assert "| `guided_step` 2 x 4x16x16, fp32 |  | SDPA rows" in tables.markdown(written, machine.describe())


def test_the_largest_latents_are_for_a_gpu() -> None:
    assert {shape.latents for shape in BENCHMARK.of("cpu", quick=False)} == {32, 64}
    assert [tuple(shape[:3]) for shape in BENCHMARK.of("cpu", quick=False) if shape.latents * shape.batch > 128] == [
        (64, 4, "bf16")
    ]
    assert {shape.latents for shape in BENCHMARK.of("cuda", quick=False)} == {32, 64, 96}
    assert BENCHMARK.of("cuda", quick=True) == BENCHMARK.quick


def test_saved_bytes_are_those_held_at_once_beside_the_weights() -> None:
    layer = nn.Linear(64, 64, bias=False)
    inputs = torch.randn(1024, 64)

    def gradient() -> torch.Tensor:
        outputs = layer(inputs).exp()  # saves 256 KiB of inputs, 16 KiB of weights, and 256 KiB of results
        (grad,) = torch.autograd.grad((outputs * outputs).sum(), layer.weight)  # outputs again, no copy
        return grad

    once, used = memory_use(gradient, besides=layer.parameters())
    assert used.saved_bytes == 512 * 1024
    twice, again = memory_use(lambda: gradient() + gradient(), besides=layer.parameters())
    assert again.saved_bytes == used.saved_bytes and torch.equal(twice, 2 * once)
    _, with_weights = memory_use(gradient, besides=())
    assert with_weights.saved_bytes >= used.saved_bytes
    assert memory_use(lambda: layer(inputs.detach()).detach(), besides=inputs)[1].saved_bytes <= used.saved_bytes


@pytest.mark.skipif(sys.platform != "linux", reason="the kernel tells the peak of resident memory on Linux alone")
def test_the_peak_is_that_of_the_run() -> None:
    def large() -> int:
        return int(torch.ones(256 * MIB, dtype=torch.uint8)[-1])

    _, used = memory_use(large, besides=())
    if used.peak_bytes is None:
        pytest.skip("this process may not reset its peak")
    assert 250 * MIB < used.peak_bytes < 300 * MIB
    _, small = memory_use(lambda: None, besides=())
    assert small.peak_bytes is not None and small.peak_bytes < 50 * MIB
