from __future__ import annotations

import re

import pytest
import timm
import torch
import torchvision
from safetensors.torch import save_file

from lesionforge.core.architectures import parameter_count
from lesionforge.core.errors import CheckpointError, ConfigError
from lesionforge.plugins.classification.config import TORCHVISION_NAMES, ClassificationConfig
from lesionforge.plugins.classification.networks import TORCHVISION, _at_size, build_network
from lesionforge.plugins.supervised.checkpoint import read_weights


def network(architecture, classes=2, size=32):
    return build_network(ClassificationConfig(architecture=architecture, size=size), classes)


@pytest.mark.parametrize("name", TORCHVISION_NAMES)
def test_networks_are_torchvisions_own(name):
    published = torchvision.models.get_model_weights(name)["DEFAULT"].meta["num_params"]
    with torch.device("meta"):
        made = network(name, 1000, 224)
    assert parameter_count(made) == published
    assert isinstance(made.last_layer, torch.nn.Linear | torch.nn.Conv2d)
    assert (made.map_layer is None) == (TORCHVISION[name][0] is None)


@pytest.mark.parametrize(
    ("name", "channels", "edge", "features"),
    [("squeezenet1_1", 512, 3, 512), ("timm:test_resnet", 96, 2, 96), ("timm:test_vit", None, None, 64)],
)
def test_maps_and_features_are_what_logits_are_made_of(name, channels, edge, features):
    torch.manual_seed(0)
    made = network(name, size=64).eval()
    images = torch.randn(3, 3, 64, 64)
    with torch.no_grad():
        maps, vectors = made.observe(images)
        logits = made(images)
        assert vectors.shape == (3, features)
        assert (maps is None) if channels is None else maps.shape == (3, channels, edge, edge)
        if name.startswith("timm"):
            assert torch.allclose(made.last_layer(vectors), logits, atol=1e-6)
        else:
            assert torch.allclose(maps.mean((2, 3)), vectors)
    assert not made.last_layer._forward_pre_hooks


def test_transformers_with_channels_last_give_out_maps_with_channels_first():
    with torch.device("meta"):
        for name in ("swin_t", "timm:swin_tiny_patch4_window7_224"):
            maps, vectors = network(name, size=64).eval().observe(torch.zeros(2, 3, 64, 64))
            assert maps.shape == (2, 768, 2, 2) and vectors.shape == (2, 768)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_pretrained_weights_are_taken_but_for_the_last_layer(tmp_path, suffix):
    torch.manual_seed(1)
    source = torchvision.models.resnet18(weights=None).state_dict()
    file = tmp_path / f"resnet18{suffix}"
    save_file(source, file) if suffix == ".safetensors" else torch.save(source, file)
    made = network("resnet18")
    before = made.last_layer.weight.clone()
    made.load(read_weights(file), where=str(file))
    state = made.network.state_dict()
    assert all(torch.equal(state[name], value) for name, value in source.items() if not name.startswith("fc."))
    assert torch.equal(made.last_layer.weight, before)
    with pytest.raises(CheckpointError, match=r"resnet18\S* does not fit the network"):
        network("squeezenet1_1").load(source, where=str(file))


def test_timms_weights_fit_and_its_normalisation_is_kept():
    source = timm.create_model("test_vit", pretrained=False, num_classes=1000, img_size=32).state_dict()
    made = network("timm:test_vit")
    made.load(source, where="file")
    assert torch.equal(made.network.state_dict()["pos_embed"], source["pos_embed"])
    assert (made.mean, made.std) == ((0.5, 0.5, 0.5), (0.5, 0.5, 0.5))
    with pytest.raises(CheckpointError, match="file does not fit"):
        network("timm:test_vit", size=64).load(source, where="file")


def test_the_published_names_of_densenet_are_understood():
    made = network("densenet121")
    new = made.network.state_dict()
    old = {re.sub(r"(denselayer\d+)\.(norm|conv)(\d)\.", r"\1.\2.\3.", name): value + 1 for name, value in new.items()}
    assert "features.denseblock1.denselayer1.norm.1.weight" in old
    made.load(old, where="file")
    assert torch.equal(made.network.features.denseblock1.denselayer1.norm1.weight, torch.full((64,), 2.0))


def test_places_of_a_vision_transformer_are_interpolated():
    grid = torch.arange(14.0).expand(14, 14).reshape(1, 196, 1)
    weights = {"encoder.pos_embedding": torch.cat([torch.full((1, 1, 1), 9.0), grid], dim=1)}
    found = _at_size(weights, 64, "file")["encoder.pos_embedding"]
    assert found.shape == (1, 17, 1) and found[0, 0] == 9
    across = found[0, 1:].reshape(4, 4)
    assert torch.allclose(across, across[:1].expand(4, 4), atol=1e-4) and bool((across[0].diff() > 0).all())
    with pytest.raises(CheckpointError, match="file does not fit the network"):
        _at_size({}, 64, "file")


@pytest.mark.parametrize(
    ("name", "told"),
    [("timm:no_such_network", "no model of timm"), ("timm:deit_tiny_distilled_patch16_224", "several heads")],
)
def test_networks_that_do_not_fit_are_refused_in_a_line(name, told):
    with torch.device("meta"), pytest.raises(ConfigError, match=told) as caught:
        network(name)
    assert "\n" not in str(caught.value)
