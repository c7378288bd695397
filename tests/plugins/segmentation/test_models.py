from __future__ import annotations

import socket

import pytest
import torch

from lesionforge.core.architectures import parameter_count
from lesionforge.core.errors import ConfigError, LesionforgeError
from lesionforge.core.registry import default_registry
from lesionforge.plugins.segmentation.architectures import ARCHITECTURES
from lesionforge.plugins.segmentation.config import NetworkConfig
from lesionforge.plugins.segmentation.models.dilated_unet import DilatedUNet
from lesionforge.plugins.segmentation.plugin import SegmentationTrainer
from lesionforge.testing import assert_contract

SMALL = {
    "unet": {"encoder": "resnet18"},
    "unetplusplus": {"encoder": "mobilenet_v2"},
    "deeplabv3plus": {"encoder": "tu-resnet18"},
    "segformer": {"encoder": "mit_b0"},
    "dilated-unet": {"width": 4, "depth": 3},
}


def build_network(**values) -> torch.nn.Module:
    return NetworkConfig(**values).network()[1].build()


def on_meta(**values) -> torch.nn.Module:
    with torch.device("meta"):
        return build_network(**values)


@pytest.mark.parametrize("architecture", [architecture.name for architecture in ARCHITECTURES])
def test_every_architecture_maps_images_to_logits_without_the_network(architecture, monkeypatch):
    def refuse(*_):
        raise AssertionError("a download was tried")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    network = build_network(architecture=architecture, size=64, **SMALL.get(architecture, {}))
    images = torch.rand(2, 3, 64, 64)
    has_auxiliary_head = "-resnet" in architecture
    network.train()
    assert network(images).shape == (2, 1 + has_auxiliary_head, 64, 64)
    with torch.no_grad():
        assert network.eval()(images).shape == (2, 1, 64, 64)
        maps = network.encode(images)
    assert len(maps) >= 2 and all(features.ndim == 4 and features.shape[1] for features in maps)
    assert maps[-1].shape[-1] < 64 and maps[-1].shape[1] >= maps[-2].shape[1]
    assert any(True for _ in network.encoder_module().parameters())


@pytest.mark.parametrize(
    "expression",
    [
        'unet(encoder="resnet18")',
        "dilated-unet(width=4, depth=3)",
        "fcn-resnet50",
    ],
)
def test_architectures_keep_the_contract_of_their_role(expression):
    assert_contract(expression, role="architecture")


@pytest.mark.parametrize(
    ("flat", "expression"),
    [
        ({"architecture": "unet"}, 'unet(encoder="resnet34")'),
        ({"architecture": "deeplabv3plus", "encoder": "resnet18", "size": 64}, 'deeplabv3plus(encoder="resnet18")'),
        ({"width": 4, "dilations": (1, 1)}, "dilated-unet(width=4, depth=4, dilations=[1, 1])"),
        ({"architecture": "dilated-unet(width=4)", "depth": 2}, "dilated-unet(width=4, depth=2, dilations=[2, 2])"),
        ({"architecture": "fcn-resnet50"}, "fcn-resnet50"),
    ],
)
def test_values_beside_a_name_are_those_of_its_expression(flat, expression):
    size = flat.get("size", 256)
    written = {"architecture": expression, "distribution": "lesionforge", "size": size}
    assert NetworkConfig(**flat).network_values() == written
    assert NetworkConfig(architecture=expression, size=size).network_values() == written


def test_parameter_counts_are_those_that_the_paper_prints():
    assert round(parameter_count(on_meta(architecture="fcn-resnet50")) / 1e6, 2) == 35.31
    assert round(parameter_count(on_meta(architecture="deeplabv3-resnet101")) / 1e6, 2) == 60.99


def test_dilation_adds_no_parameters_and_widens_the_view():
    plain, dilated = (on_meta(dilations=rates) for rates in ((1, 1), (2, 4)))
    assert parameter_count(plain) == parameter_count(dilated) == parameter_count(on_meta())
    assert [p.shape for p in plain.parameters()] == [p.shape for p in dilated.parameters()]

    def reach(dilations: tuple[int, int]) -> int:
        torch.manual_seed(0)
        encoder = DilatedUNet(4, 2, dilations).double().eval().encoder
        images = torch.rand(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
        encoder(images)[-1][0, :, 8, 8].sum().backward()
        columns = images.grad[0].abs().sum((0, 1)).nonzero()
        return int(columns.max() - columns.min() + 1)

    assert reach((4, 4)) > reach((2, 2)) > reach((1, 1))


def test_dilated_unet_is_the_layer_list_it_claims():
    network = DilatedUNet(8, 3, (2, 3))
    bottleneck = [layer for layer in network.encoder.levels[-1] if isinstance(layer, torch.nn.Conv2d)]
    assert [(layer.in_channels, layer.out_channels) for layer in bottleneck] == [(32, 64), (64, 64)]
    assert [layer.dilation for layer in bottleneck] == [(2, 2), (3, 3)]
    others = [m for level in network.encoder.levels[:-1] for m in level if isinstance(m, torch.nn.Conv2d)]
    assert {layer.dilation for layer in others} == {(1, 1)}
    assert [tuple(m.shape[1:]) for m in network.encode(torch.rand(1, 3, 16, 16))] == [
        (8, 16, 16),
        (16, 8, 8),
        (32, 4, 4),
        (64, 2, 2),
    ]


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"size": 100}, "size = 100: dilated-unet needs a multiple of 16"),
        ({"architecture": "dilated-unet(depth=5)", "size": 48}, "size = 48: dilated-unet needs a multiple of 32"),
        ({"architecture": "unet", "size": 48}, "multiple of 32"),
        ({"architecture": "unet", "width": 8}, "width applies to .*dilated-unet.*, not to unet"),
        ({"encoder": "resnet18"}, "encoder applies to .*unet.*, not to dilated-unet"),
        ({"dilations": [0, 2]}, r"dilations\.0 = 0"),
        ({"architecture": "dilated-unet(dilations=[0, 2])"}, r"dilated-unet: dilations\.0 = 0"),
        ({"architecture": "dilated-unet(width=8)", "width": 8}, "width is given twice"),
        ({"architecture": "vnet"}, "no architecture is called 'vnet'; there are .*unet"),
    ],
)
def test_bad_values_are_named(values, message):
    with pytest.raises(LesionforgeError, match=f"^training r: .*{message}") as caught:
        default_registry().configured(SegmentationTrainer, values, where="training r")
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"architecture": "unet", "encoder": "resnet9000"}, "'resnet9000' is unknown"),
        ({"architecture": "unet", "encoder": "tu-nothing"}, "'tu-nothing' is unknown"),
        ({"architecture": "deeplabv3plus", "encoder": "densenet121"}, "does not go with deeplabv3plus"),
        ({"architecture": "unetplusplus", "encoder": "mit_b0"}, "does not go with unetplusplus"),
    ],
)
def test_bad_encoders_are_named(values, message):
    with pytest.raises(ConfigError, match=message) as caught:
        build_network(**values)
    assert "\n" not in str(caught.value)
