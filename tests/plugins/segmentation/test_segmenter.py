from __future__ import annotations

import json

import pytest
import torch
from safetensors.torch import load_file, save_file
from torchvision.models import resnet18

from lesionforge.core.errors import CheckpointError
from lesionforge.plugins.segmentation.config import SegmenterInfo
from lesionforge.plugins.segmentation.segmenter import Segmenter, load_encoder, load_segmenter
from lesionforge.plugins.supervised.checkpoint import save_checkpoint

UNET = SegmenterInfo(architecture="unet", encoder="resnet18", size=32)


def test_published_weights_reload_bit_for_bit(tmp_path):
    torch.manual_seed(0)
    segmenter = Segmenter(UNET).on(torch.device("cpu")).eval()
    save_checkpoint(tmp_path, segmenter, UNET)
    random_state = torch.get_rng_state()
    again, info = load_segmenter(str(tmp_path))
    assert torch.equal(random_state, torch.get_rng_state())
    assert info == UNET and not again.training
    state, other = segmenter.state_dict(), again.state_dict()
    assert state.keys() == other.keys() and all(torch.equal(state[name], other[name]) for name in state)
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(segmenter(images), again.on(torch.device("cpu"))(images))


def test_the_network_normalises_by_itself():
    info = SegmenterInfo(architecture="dilated-unet", width=2, depth=1, size=16, mean=(0.1, 0.2, 0.3), std=(2, 3, 4))
    segmenter = Segmenter(info).eval()
    images = torch.rand(1, 3, 16, 16)
    shifted = torch.stack([(images[:, c] - m) / s for c, (m, s) in enumerate(zip(info.mean, info.std, strict=True))], 1)
    with torch.no_grad():
        assert torch.allclose(segmenter(images), segmenter.network(shifted))


def spoil_json(folder):
    (folder / "config.json").write_text("{not json")


def spoil_kind(folder):
    (folder / "config.json").write_text(json.dumps({"_class_name": "UNet2DModel"}))


def spoil_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:1000])


def spoil_names(folder):
    weights = load_file(folder / "model.safetensors")
    weights["extra"] = weights.pop(next(iter(weights)))
    save_file(weights, folder / "model.safetensors")


def spoil_architecture(folder):
    info = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**info, "width": 8}))


def remove_weights(folder):
    (folder / "model.safetensors").unlink()


def remove_info(folder):
    (folder / "config.json").unlink()


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_json, "config.json does not describe a segmentation checkpoint"),
        (spoil_kind, "config.json does not describe a segmentation checkpoint: .*kind|_class_name"),
        (spoil_weights, "damaged or of another kind"),
        (spoil_names, "does not fit the network: 2 of"),
        (spoil_architecture, "does not fit the network"),
        (remove_weights, "model.safetensors does not exist"),
        (remove_info, "is no segmentation checkpoint: it has no config.json"),
    ],
)
def test_a_spoilt_checkpoint_is_one_clear_line(checkpoint, spoil, message):
    spoil(checkpoint)
    with pytest.raises(CheckpointError, match=message) as caught:
        load_segmenter(checkpoint)
    assert "\n" not in str(caught.value) and str(checkpoint) in str(caught.value)


def test_a_file_or_nothing_in_place_of_the_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("x")
    for path in (tmp_path / "absent", tmp_path / "file"):
        with pytest.raises(CheckpointError, match="is no segmentation checkpoint"):
            load_segmenter(path)


@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
@pytest.mark.parametrize("counters", [True, False])
def test_pretrained_encoders_are_read_from_a_local_file(tmp_path, suffix, counters):
    torch.manual_seed(1)
    source = resnet18(weights=None).state_dict()
    if not counters:
        source = {name: value for name, value in source.items() if not name.endswith("num_batches_tracked")}
    file = tmp_path / f"resnet18{suffix}"
    save_file(source, file) if suffix == ".safetensors" else torch.save(source, file)
    segmenter = Segmenter(UNET)
    load_encoder(segmenter, file)
    encoder = segmenter.network.encoder_module().state_dict()
    assert all(torch.equal(encoder[name], value) for name, value in source.items() if not name.startswith("fc."))


def test_weights_of_another_encoder_or_of_code_are_refused(tmp_path):
    file = tmp_path / "other.safetensors"
    save_file({"conv1.weight": torch.zeros(1)}, file)
    with pytest.raises(CheckpointError, match="does not fit the network"):
        load_encoder(Segmenter(UNET), file)
    hostile = tmp_path / "hostile.pth"
    torch.save(Segmenter, hostile)
    with pytest.raises(CheckpointError, match="damaged or of another kind") as caught:
        load_encoder(Segmenter(UNET), hostile)
    assert "\n" not in str(caught.value)
    torch.save([1, 2], tmp_path / "list.pth")
    with pytest.raises(CheckpointError, match="no table of tensors"):
        load_encoder(Segmenter(UNET), tmp_path / "list.pth")
