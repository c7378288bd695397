from __future__ import annotations

import copy

import numpy as np
import pytest
import torch
from diffusers import DDPMPipeline, DDPMScheduler
from hypothesis import given
from hypothesis import strategies as st
from scipy.ndimage import correlate

from lesionforge.core.context import Context
from lesionforge.core.errors import ConfigError
from lesionforge.core.training import TrainingLoop
from lesionforge.plugins.ddpm.blocks import NormActConv2d, SelfAttention2d, group_norm, sinusoids
from lesionforge.plugins.ddpm.unet import DilatedUNet2D


def test_plain_ablation_has_exactly_the_same_parameters_but_computes_something_else(tiny_network):
    dilated = tiny_network(multipliers=(1, 2, 2, 2), dilations=(2, 4))
    plain = tiny_network(multipliers=(1, 2, 2, 2), dilations=(1, 1))
    shapes = [{name: tuple(p.shape) for name, p in network.named_parameters()} for network in (dilated, plain)]
    assert shapes[0] == shapes[1]
    plain.load_state_dict(dilated.state_dict())
    x = torch.randn(1, 3, 64, 64, generator=torch.Generator().manual_seed(0))
    assert not torch.allclose(dilated(x, 3).sample, plain(x, 3).sample, atol=1e-3)


def test_only_the_two_deepest_levels_and_the_bottleneck_are_dilated():
    network = DilatedUNet2D(width=8, dilations=(2, 4))
    expected = {("encoder", 2): 2, ("encoder", 3): 4, ("decoder", 0): 4, ("decoder", 1): 2}
    for name, layer in network.named_modules():
        if isinstance(layer, NormActConv2d):
            part, _, rest = name.partition(".")
            level = int(rest.split(".")[0]) if part in ("encoder", "decoder") else -1
            rate = 4 if part == "bottleneck" else expected.get((part, level), 1)
            assert layer.conv.dilation == layer.conv.padding == (rate, rate), name


@pytest.mark.parametrize(("levels", "bottleneck"), [((2,), True), ((), False), ((1, 4), False), ((), True)])
def test_attention_sits_where_the_configuration_says(levels, bottleneck):
    network = DilatedUNet2D(width=8, attention_levels=levels, bottleneck_attention=bottleneck)
    names = [name for name, layer in network.named_modules() if isinstance(layer, SelfAttention2d)]
    encoder = {int(name.split(".")[1]) + 1 for name in names if name.startswith("encoder")}
    decoder = {4 - int(name.split(".")[1]) for name in names if name.startswith("decoder")}
    assert encoder == decoder == set(levels)
    assert any(name.startswith("bottleneck") for name in names) == bottleneck


@pytest.mark.parametrize("size", [(16, 16), (17, 23), (1, 9), (30, 64)])
@pytest.mark.parametrize("settings", [{}, {"multipliers": (1, 2, 2, 2)}, {"width": 20, "blocks_per_level": 3}])
def test_any_size_goes_in_and_comes_out(tiny_network, size, settings):
    network = tiny_network(4, **settings)
    assert network(torch.zeros(2, 4, *size), torch.tensor([0, 999])).sample.shape == (2, 4, *size)


@pytest.mark.parametrize("dilation", [1, 2, 4])
def test_norm_act_conv_against_scipy_in_float64(dilation):
    rng = torch.Generator().manual_seed(dilation)
    layer = NormActConv2d(8, 5, dilation=dilation).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=rng)
    x, shift, residual = (torch.randn(shape, generator=rng).double() for shape in [(2, 8, 7, 9), (2, 5), (2, 5, 7, 9)])
    groups = x.numpy().reshape(2, layer.norm.num_groups, -1)
    normal = (groups - groups.mean(2, keepdims=True)) / np.sqrt(groups.var(2, keepdims=True) + layer.norm.eps)
    normal = normal.reshape(x.shape)
    normal = (
        normal * layer.norm.weight.detach().numpy()[:, None, None] + layer.norm.bias.detach().numpy()[:, None, None]
    )
    active = normal / (1 + np.exp(-normal))
    spread = np.zeros((5, 8, 2 * dilation + 1, 2 * dilation + 1))
    spread[:, :, ::dilation, ::dilation] = layer.conv.weight.detach().numpy()
    expected = residual.numpy() + (layer.conv.bias.detach() + shift).numpy()[:, :, None, None]
    for case in range(2):
        for out in range(5):
            for channel in range(8):
                expected[case, out] += correlate(active[case, channel], spread[out, channel], mode="constant")
    actual = layer(x, shift=shift, residual=residual).detach().numpy()
    np.testing.assert_allclose(actual, expected, atol=1e-11)


@given(st.integers(1, 600))
def test_no_group_is_so_small_that_it_cancels_the_timestep(channels):
    norm = group_norm(channels)
    assert norm.num_groups <= 32 and channels % norm.num_groups == 0
    assert channels // norm.num_groups >= min(4, channels)


def test_attention_is_the_literal_formula():
    rng = torch.Generator().manual_seed(0)
    layer = SelfAttention2d(8, head_channels=4).double()
    for parameter in layer.parameters():
        torch.nn.init.normal_(parameter, generator=rng)
    x = torch.randn(2, 8, 3, 5, generator=rng).double()
    tokens = layer.norm(x).reshape(2, 8, 15).mT
    query, key, value = layer.to_qkv(tokens).split(8, dim=2)
    heads = []
    for head in (slice(0, 4), slice(4, 8)):
        weights = torch.softmax(query[..., head] @ key[..., head].mT / 4**0.5, dim=-1)
        heads.append(weights @ value[..., head])
    expected = x + layer.to_out(torch.cat(heads, dim=2)).mT.reshape(x.shape)
    torch.testing.assert_close(layer(x), expected, atol=1e-11, rtol=0)


def test_timestep_embedding_is_the_literal_formula():
    times, dim = np.array([0, 1, 500, 999]), 12
    angles = times[:, None] / 10000 ** (2 * np.arange(dim // 2) / dim)
    expected = np.concatenate([np.sin(angles), np.cos(angles)], axis=1)
    np.testing.assert_allclose(sinusoids(torch.tensor(times), dim).numpy(), expected, atol=1e-4)


def test_conditions_reach_every_case(tiny_network):
    network = tiny_network(num_classes=3)
    x = torch.randn(1, 3, 16, 16, generator=torch.Generator().manual_seed(2)).expand(4, -1, -1, -1)
    together = network(x, torch.tensor([5, 5, 5, 900]), torch.tensor([0, 1, 3, 3])).sample
    assert not torch.allclose(together[0], together[1], atol=1e-3)
    assert not torch.allclose(together[2], together[3], atol=1e-3)
    torch.testing.assert_close(network(x[:1], 5).sample[0], together[2], atol=1e-5, rtol=1e-4)
    assert network.null_class == 3


def test_saved_and_loaded_is_the_same_network(tiny_network, tmp_path):
    network = tiny_network(4, 2, dilations=(1, 3), attention_levels=(1,))
    network.save_pretrained(tmp_path)
    assert [file.name for file in tmp_path.glob("*.safetensors")]
    again = DilatedUNet2D.from_pretrained(tmp_path, local_files_only=True)
    x = torch.randn(2, 4, 16, 16, generator=torch.Generator().manual_seed(3))
    assert torch.equal(again(x, 7, torch.tensor([0, 2])).sample, network(x, 7, torch.tensor([0, 2])).sample)


def test_channels_last_bfloat16_is_near_float32(tiny_network):
    network = tiny_network()
    x = torch.randn(2, 3, 16, 16, generator=torch.Generator().manual_seed(4))
    expected = network(x, 11).sample
    fast = tiny_network().to(memory_format=torch.channels_last)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        actual = fast(x.contiguous(memory_format=torch.channels_last), 11).sample
    assert (actual.float() - expected).abs().max() < 0.05 * expected.abs().max()


def test_fits_diffusers_own_pipeline(tiny_network):
    pipeline = DDPMPipeline(tiny_network(), DDPMScheduler(10))
    pipeline.set_progress_bar_config(disable=True)
    rng = torch.Generator().manual_seed(0)
    images = pipeline(batch_size=2, generator=rng, num_inference_steps=2, output_type="np").images
    assert images.shape == (2, 16, 16, 3) and np.isfinite(images).all()


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"attention_levels": (5,)}, "from 1 to 4"),
        ({"multipliers": (1,)}, "at least two levels"),
        ({"width": 9}, "even"),
        ({"width": 10, "head_channels": 3}, "heads"),
    ],
)
def test_numbers_that_do_not_fit_are_refused(settings, words):
    with pytest.raises(ConfigError, match=words):
        DilatedUNet2D(**{"width": 8, **settings})


def test_dilated_layers_of_any_width_learn_in_bf16_what_they_should(tmp_path):
    """24 channels: oneDNN's bfloat16 gradient of such a dilated convolution is wrong, see core.convolutions."""
    torch.manual_seed(0)
    layer = NormActConv2d(24, 24, dilation=2)
    exact = copy.deepcopy(layer).double()
    images, shift = torch.randn(4, 24, 32, 32).contiguous(memory_format=torch.channels_last), torch.randn(4, 24)
    context = Context(torch.device("cpu"), "bf16", "job", seed=1)
    optimizer = torch.optim.SGD(layer.parameters(), lr=1.0)
    loop = TrainingLoop(
        model=layer, optimizer=optimizer, output=tmp_path, context=context, steps=1, batch_size=4, examples=4
    )
    before = layer.conv.weight.detach().clone()
    loop.run(lambda rows, step: {"loss": loop.network(images, shift=shift, residual=images).float().square().mean()})
    exact(images.double(), shift=shift.double(), residual=images.double()).square().mean().backward()
    wanted = exact.conv.weight.grad
    assert (before - layer.conv.weight - wanted).abs().max() < 0.05 * wanted.abs().max()
