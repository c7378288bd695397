"""Extractors on weights files that the test writes: there a file of random numbers stands for trained weights."""

from __future__ import annotations

import pickle
import sys
from pathlib import Path

import pytest
import torch
import torchvision
from safetensors.torch import save_file

from lesionforge.core.errors import CheckpointError, ConfigError, PluginError
from lesionforge.plugins.quality import inception
from lesionforge.plugins.quality.extractors import FID_LABEL
from lesionforge.plugins.quality.perceptual import embed, squared_distances
from lesionforge.plugins.quality.weights import fingerprint

EXTRACTORS = {
    "inception": {},
    "lpips": {},
    "torchvision": {"model": "resnet18"},
    "timm": {"model": "resnet18"},
    "open-clip": {"model": "RN50"},
}


@pytest.fixture(autouse=True)
def empty_hub(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    (tmp_path / "hub" / "checkpoints").mkdir(parents=True)
    return tmp_path / "hub" / "checkpoints"


@pytest.fixture(scope="module")
def resnet(tmp_path_factory) -> Path:
    path = tmp_path_factory.mktemp("weights") / "resnet18.safetensors"
    save_file(seeded(lambda: torchvision.models.resnet18()).state_dict(), path)
    return path


def seeded(build):
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(7)
        return build().eval()


def images(count: int = 3, size: int = 64) -> torch.Tensor:
    return torch.rand(count, 3, size, size, generator=torch.Generator().manual_seed(0))


@pytest.mark.parametrize("name", EXTRACTORS)
def test_without_weights_there_is_advice_and_never_a_random_network(ready, name) -> None:
    with pytest.raises(
        CheckpointError, match=rf'extractor {name} has no weights: .*extractor="segmenter" works offline'
    ):
        ready("extractor", name, **EXTRACTORS[name])
    with pytest.raises(CheckpointError, match=r"nowhere\.pth do not exist"):
        ready("extractor", name, **EXTRACTORS[name], weights="nowhere.pth")


def test_advice_names_the_file_of_the_fid(ready) -> None:
    with pytest.raises(CheckpointError, match=r"pt_inception-2015-12-05-6726825d\.pth"):
        ready("extractor", "inception")


@pytest.mark.parametrize("name", EXTRACTORS)
def test_foreign_damaged_and_pickled_files_are_refused(ready, tmp_path, name) -> None:
    foreign, pickled = tmp_path / "foreign.pth", tmp_path / "pickled.pth"
    damaged = [tmp_path / "damaged.pth", tmp_path / "damaged.safetensors"]
    torch.save({"layer": torch.ones(2)}, foreign)
    for path in damaged:
        path.write_bytes(foreign.read_bytes()[:200])
    pickled.write_bytes(pickle.dumps({"layer": Path("code")}, protocol=2))
    with pytest.raises(CheckpointError, match=f"foreign.pth do not fit extractor {name}"):
        ready("extractor", name, **EXTRACTORS[name], weights=str(foreign))
    for path in (*damaged, pickled):
        with pytest.raises(CheckpointError, match=f"{path.name} cannot be read as plain tensors") as caught:
            ready("extractor", name, **EXTRACTORS[name], weights=str(path))
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    ("name", "package"), [("inception", "torch_fidelity"), ("timm", "timm"), ("open-clip", "open_clip")]
)
def test_a_missing_package_names_the_extra(ready, resnet, monkeypatch, name, package) -> None:
    for module in [module for module in sys.modules if module.partition(".")[0] == package]:
        monkeypatch.delitem(sys.modules, module)
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(PluginError, match=rf"extractor {name} needs the package {package} .*lesionforge\[quality\]"):
        ready("extractor", name, **EXTRACTORS[name], weights=str(resnet))


def test_torchvision_features_are_what_the_classifier_sees(ready, resnet) -> None:
    extractor = ready("extractor", "torchvision", model="resnet18", weights=str(resnet))
    network = seeded(lambda: torchvision.models.resnet18())
    network.fc = torch.nn.Identity()
    normalise = torchvision.transforms.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])
    prepared = normalise(torchvision.transforms.functional.resize(images(), [224, 224], antialias=True))
    with torch.no_grad():
        torch.testing.assert_close(extractor.features(images()), network(prepared), rtol=1e-4, atol=1e-5)
    assert [tuple(layer.shape) for layer in extractor.feature_maps(images())] == [
        (3, 64, 56, 56),
        (3, 128, 28, 28),
        (3, 256, 14, 14),
        (3, 512, 7, 7),
    ]
    assert extractor.label == f"torchvision resnet18 {fingerprint(resnet)}"


def test_torchvision_takes_other_heads_folders_and_wrapped_files(ready, resnet, tmp_path, empty_hub) -> None:
    expected = ready("extractor", "torchvision", model="resnet18", weights=str(resnet)).features(images())
    state = seeded(lambda: torchvision.models.resnet18()).state_dict()
    state |= {"fc.weight": torch.zeros(3, 512), "fc.bias": torch.zeros(3)}
    wrapped = tmp_path / "folder" / "model.pth"
    wrapped.parent.mkdir()
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}, "epoch": 3}, wrapped)
    torch.save(state, empty_hub / "resnet18-f37072fd.pth")
    for weights in ({"weights": str(wrapped.parent)}, {}):
        found = ready("extractor", "torchvision", model="resnet18", **weights).features(images())
        assert torch.equal(found, expected)
    (wrapped.parent / "second.pt").write_bytes(b"")
    with pytest.raises(CheckpointError, match="holds 2 weights files"):
        ready("extractor", "torchvision", model="resnet18", weights=str(wrapped.parent))


@pytest.mark.parametrize(
    ("model", "channels"), [("densenet121", [64, 256, 512, 1024, 1024]), ("mobilenet_v3_small", [16, 16, 24, 48, 576])]
)
def test_torchvision_maps_go_from_shallow_to_deep(ready, tmp_path, model, channels) -> None:
    path = tmp_path / "weights.pth"
    torch.save(seeded(lambda: torchvision.models.get_model(model)).state_dict(), path)
    extractor = ready("extractor", "torchvision", model=model, weights=str(path))
    maps = extractor.feature_maps(images(1))
    assert [layer.shape[1] for layer in maps] == channels
    sizes = [layer.shape[2] for layer in maps]
    assert sizes == sorted(set(sizes), reverse=True)
    assert extractor.features(images(1)).shape[0] == 1


def test_networks_without_known_maps_still_have_features(ready, tmp_path) -> None:
    path = tmp_path / "weights.pth"
    torch.save(seeded(lambda: torchvision.models.swin_t()).state_dict(), path)
    extractor = ready("extractor", "torchvision", model="swin_t", weights=str(path))
    assert extractor.features(images(1)).shape == (1, 768)
    with pytest.raises(ConfigError, match="maps of swin_t are not known"):
        extractor.feature_maps(images(1))


@pytest.mark.parametrize("name", ["torchvision", "timm", "open-clip"])
def test_unknown_models_are_refused(ready, resnet, name) -> None:
    with pytest.raises(ConfigError, match="'no_such_model' is no"):
        ready("extractor", name, model="no_such_model", weights=str(resnet))
    with pytest.raises(ConfigError, match="key 'model' is required"):
        ready("extractor", name, weights=str(resnet))


def test_features_do_not_depend_on_neighbours_or_the_global_generator(ready, resnet) -> None:
    state = torch.get_rng_state()
    extractor = ready("extractor", "torchvision", model="resnet18", weights=str(resnet))
    batch = images(4)
    assert torch.equal(extractor.features(batch.flip(0)).flip(0), extractor.features(batch))
    assert torch.equal(torch.get_rng_state(), state)


def test_timm_backbone_from_a_file_with_its_head(ready, tmp_path) -> None:
    timm = pytest.importorskip("timm")
    network = seeded(lambda: timm.create_model("resnet18", pretrained=False))
    path = tmp_path / "weights.safetensors"
    save_file(network.state_dict(), path)
    extractor = ready("extractor", "timm", model="resnet18", weights=str(path))
    shift, scale = (torch.tensor(v)[:, None, None] for v in ((0.485, 0.456, 0.406), (0.229, 0.224, 0.225)))
    large = images(2, 224)
    with torch.no_grad():
        expected = network.forward_head(network.forward_features((large - shift) / scale), pre_logits=True)
    torch.testing.assert_close(extractor.features(large), expected, rtol=1e-4, atol=1e-5)
    assert [layer.shape[1] for layer in extractor.feature_maps(large)] == [64, 64, 128, 256, 512]
    assert extractor.label == f"timm resnet18 {fingerprint(path)}"


def test_open_clip_uses_the_image_tower(ready, tmp_path) -> None:
    open_clip = pytest.importorskip("open_clip")
    network = seeded(lambda: open_clip.create_model("RN50", load_weights=False))
    path = tmp_path / "weights.pth"
    torch.save({key: value for key, value in network.state_dict().items() if key.startswith("visual.")}, path)
    extractor = ready("extractor", "open-clip", model="RN50", weights=str(path))
    large = images(1, 224)
    shift, scale = (
        torch.tensor(v)[:, None, None] for v in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    with torch.no_grad():
        torch.testing.assert_close(extractor.features(large), network.encode_image((large - shift) / scale))
    assert [layer.shape[2] for layer in extractor.feature_maps(large)] == [56, 56, 28, 14, 7]


@pytest.mark.parametrize("model", ["alex", "vgg"])
def test_lpips_matches_the_package_on_the_same_backbone(ready, tmp_path, model) -> None:
    lpips = pytest.importorskip("lpips")
    builders = {"alex": torchvision.models.alexnet, "vgg": torchvision.models.vgg16}
    backbone = seeded(lambda: builders[model]().features)
    path = tmp_path / "backbone.pth"
    torch.save({f"features.{key}": value for key, value in backbone.state_dict().items()}, path)
    reference = lpips.LPIPS(net=model, pnet_rand=True, verbose=False)
    for number in range(1, 6):
        for key, layer in getattr(reference.net, f"slice{number}").named_children():
            layer.load_state_dict(backbone[int(key)].state_dict())
    extractor = ready("extractor", "lpips", model=model, weights=str(path))
    one, other = images(4)[:2], images(4)[2:]
    vectors = [embed(extractor.feature_maps(part), extractor.channel_weights, None) for part in (one, other)]
    found = squared_distances(*vectors).diagonal()
    with torch.no_grad():
        expected = reference(one, other, normalize=True).flatten().double()
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-7)
    assert extractor.label == f"LPIPS form on {model} {fingerprint(path)}"
    assert extractor.features(one).shape == (2, 1152 if model == "alex" else 1472)


def test_the_filter_says_lpips_only_with_standard_weights_on_full_maps(ready, tmp_path, monkeypatch) -> None:
    path = tmp_path / "backbone.pth"
    torch.save(seeded(torchvision.models.alexnet).state_dict(), path)
    values = {"extractor": "lpips", "weights": str(path)}
    stage = ready("filter", "lpips-outlier", map_size=0, **values)
    assert stage.measure == f"perceptual distance, LPIPS form on alex {fingerprint(path)}"
    monkeypatch.setattr("lesionforge.plugins.quality.lpips_network.fingerprint", lambda path: "7be5be79")
    assert ready("filter", "lpips-outlier", map_size=0, **values).measure == "LPIPS (AlexNet)"
    assert ready("filter", "lpips-outlier", **values).measure == "LPIPS (AlexNet), maps averaged to 8x8"


def test_inception_matches_torch_fidelity(ready, tmp_path, empty_hub) -> None:
    module = pytest.importorskip("torch_fidelity.feature_extractor_inceptionv3")
    path = empty_hub / inception.HUB_NAMES[1]
    twin = seeded(lambda: torchvision.models.inception_v3(num_classes=1008, aux_logits=False, init_weights=False))
    torch.save(twin.state_dict(), path)
    extractor = ready("extractor", "inception")
    reference = module.FeatureExtractorInceptionV3("x", ["2048"], feature_extractor_weights_path=str(path))
    pixels = images(2).mul(255).round().to(torch.uint8)
    with torch.no_grad():
        expected = reference(pixels)[0]
    assert torch.equal(extractor.features(images(2)), expected) and expected.shape == (2, 2048)
    assert extractor.label == f"Inception {fingerprint(path)}, not FID's" != FID_LABEL
    assert [tuple(layer.shape[1:]) for layer in extractor.feature_maps(images(1))] == [
        (64, 147, 147),
        (192, 71, 71),
        (288, 35, 35),
        (768, 17, 17),
        (2048, 8, 8),
    ]
