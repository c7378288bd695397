"""The networks are the paper's: channels, strides, scales and what a score sees."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch import nn

from lesionforge_zoo.pix2pixhd.config import GeneratorShape
from lesionforge_zoo.pix2pixhd.network import (
    Discriminators,
    PatchDiscriminator,
    build_generator,
    draw_weights,
    halved,
)


def layers(network: nn.Module) -> list[tuple[int, int, int]]:
    """Kernel, stride and output channels of every convolution; a transposed one's stride is negative."""
    found = []
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d | nn.ConvTranspose2d):
            sign = -1 if isinstance(layer, nn.ConvTranspose2d) else 1
            found.append((layer.kernel_size[0], sign * layer.stride[0], layer.out_channels))
    return found


def test_the_default_generator_has_the_papers_layers():
    with torch.device("meta"):
        generator = build_generator(GeneratorShape(), 0)
    front = [(7, 1, 64), (3, 2, 128), (3, 2, 256), (3, 2, 512), (3, 2, 1024)]
    back = [(3, -2, 512), (3, -2, 256), (3, -2, 128), (3, -2, 64)]
    assert layers(generator.features) == front + [(3, 1, 1024)] * 18 + back
    enhancer = nn.ModuleList([generator.front, generator.blocks, generator.back])
    assert layers(enhancer) == [(7, 1, 32), (3, 2, 64), *[(3, 1, 64)] * 6, (3, -2, 32), (7, 1, 3)]


def test_the_global_generator_alone_ends_in_three_channels():
    with torch.device("meta"):
        generator = build_generator(GeneratorShape(enhancer=False, downsamplings=3), 2)
    assert layers(generator)[0] == (7, 1, 64) and layers(generator)[-1] == (7, 1, 3)
    assert next(generator.parameters()).shape == (64, 3, 7, 7)


def test_the_default_discriminator_has_the_papers_layers_and_sees_70_pixels():
    stack = layers(PatchDiscriminator(4, 64, 3))
    assert [width for _, _, width in stack] == [64, 128, 256, 512, 1]
    seen = 1
    for kernel, stride, _ in reversed(stack):
        seen = (seen - 1) * stride + kernel
    assert seen == 70


def test_each_discriminator_judges_the_pair_at_half_the_edge_of_the_one_before():
    torch.manual_seed(0)
    condition, images = torch.rand(2, 1, 64, 64), torch.rand(2, 3, 64, 64)
    discriminators = Discriminators(4, count=3, width=4, halvings=2)
    judged = discriminators(condition, images)
    pairs = torch.cat((condition, images), dim=1)
    for discriminator, scale in zip(discriminators.scales, judged, strict=True):
        assert torch.equal(discriminator(pairs)[-1], scale[-1]) and len(scale) == 4
        pairs = halved(pairs)
    assert pairs.shape[-1] == 8


def test_halving_is_the_mean_of_the_pixels_that_are_there():
    pixels = torch.arange(16.0).view(1, 1, 4, 4)
    half = halved(pixels)[0, 0]
    assert half[0, 0] == pixels[0, 0, :2, :2].mean() and half[1, 1] == pixels[0, 0, 1:4, 1:4].mean()


@pytest.mark.parametrize("enhancer", [True, False])
def test_images_have_the_conditions_edge_and_every_weight_takes_part(enhancer):
    shape = GeneratorShape(size=16, width=4, downsamplings=2, blocks=1, enhancer=enhancer, enhancer_blocks=1)
    generator = build_generator(shape, 0)
    torch.manual_seed(0)
    draw_weights(generator)
    images = generator((torch.rand(2, 1, 16, 16) > 0.5).float())
    assert images.shape == (2, 3, 16, 16) and images.abs().max() <= 1
    images.square().sum().backward()
    assert all(weight.grad is not None and weight.grad.abs().sum() > 0 for weight in generator.parameters())


def test_weights_are_drawn_from_the_papers_gaussian():
    network = nn.Conv2d(64, 64, 5)
    torch.manual_seed(0)
    draw_weights(network)
    deviation, mean = network.weight.std().item(), network.weight.mean().item()
    assert deviation == pytest.approx(0.02, rel=0.02) and abs(mean) < 2e-4
    assert not network.bias.any()


def test_an_edge_that_cannot_be_halved_says_what_would_be_right():
    with pytest.raises(ValidationError, match=r"size 100 is halved 5 times .* a multiple of 32, at least 64"):
        GeneratorShape(size=100)
    with pytest.raises(ValidationError, match="size 32 is halved 5 times"):
        GeneratorShape(size=32)
