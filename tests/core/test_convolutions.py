"""Gradients that training gets in bfloat16 on a CPU, against float64."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional

from lesionforge.core.context import Context
from lesionforge.core.convolutions import Float32Conv2d
from lesionforge.core.training import TrainingLoop

# Channels in and out, dilation, groups: groups that fill blocks of 16 channels, and such that do not.
SHAPES = [(16, 8, 1, 1), (24, 8, 1, 1), (32, 8, 2, 1), (24, 8, 2, 1), (40, 24, 4, 1), (17, 8, 3, 1)]
SHAPES += [(32, 32, 2, 32), (8, 8, 2, 8), (24, 24, 4, 24), (48, 48, 2, 2), (32, 32, 2, 2)]


def looped(network, output, precision="bf16"):
    context = Context(torch.device("cpu"), precision, "job", seed=1)
    optimizer = torch.optim.SGD(network.parameters(), lr=1.0)
    return TrainingLoop(
        model=network, optimizer=optimizer, output=output, context=context, steps=1, batch_size=4, examples=4
    )


@pytest.mark.parametrize(("inputs", "outputs", "dilation", "groups"), SHAPES)
def test_a_step_in_bf16_follows_the_gradient(tmp_path, inputs, outputs, dilation, groups):
    torch.manual_seed(0)
    network = nn.Conv2d(inputs, outputs, 3, padding=dilation, dilation=dilation, groups=groups)
    exact = copy.deepcopy(network).double()
    images, aims = torch.randn(4, inputs, 32, 32), torch.randn(4, outputs, 32, 32)
    loop = looped(network, tmp_path)

    def losses(rows, step):
        made = loop.network(images.contiguous(memory_format=torch.channels_last))
        assert made.dtype == torch.bfloat16
        return {"loss": functional.mse_loss(made.float(), aims)}

    before = network.weight.detach().clone()
    loop.run(losses)
    functional.mse_loss(exact(images.double()), aims.double()).backward()
    wanted = exact.weight.grad
    assert (before - network.weight - wanted).abs().max() < 0.05 * wanted.abs().max()


def test_only_what_is_spoilt_is_computed_in_float32_and_weights_keep_their_names(tmp_path):
    network = nn.Sequential(
        nn.Conv2d(24, 24, 3, padding=1), nn.Conv2d(24, 32, 3, dilation=2), nn.Conv2d(32, 32, 3, dilation=2)
    )
    names = list(network.state_dict())
    looped(network, tmp_path, "fp32")
    assert [type(layer) for layer in network] == [nn.Conv2d] * 3
    looped(network, tmp_path)
    assert [type(layer) for layer in network] == [nn.Conv2d, Float32Conv2d, nn.Conv2d]
    assert list(network.state_dict()) == names
