from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, PNDMScheduler, StableDiffusionPipeline
from safetensors.torch import load_file, save_file
from transformers.utils import logging

from lesionforge.core import checkpoints
from lesionforge.core.durable import tree_hash
from lesionforge.core.errors import CheckpointError
from lesionforge.plugins.diffusion.schedule import NoiseSchedule
from lesionforge.plugins.stable_diffusion.base import load_base, save_base
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion

PARTS = ("unet", "vae", "text_encoder", "tokenizer", "scheduler")


@pytest.fixture
def damaged(tiny_folder, tmp_path) -> Path:
    """A copy of the tiny base, to be damaged."""
    return Path(shutil.copytree(tiny_folder(), tmp_path / "base"))


def edit(file: Path, **changes) -> None:
    file.write_text(json.dumps({**json.loads(file.read_text()), **changes}))


def same_weights(a: torch.nn.Module, b: torch.nn.Module) -> bool:
    ours, theirs = a.state_dict(), b.state_dict()
    return ours.keys() == theirs.keys() and all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_base_is_loaded_whole_in_fp32_and_ready_to_use(tiny_folder):
    base = load_base(tiny_folder())
    assert not any(network.training for network in (base.unet, base.vae, base.text_encoder))
    assert {p.dtype for network in (base.unet, base.vae, base.text_encoder) for p in network.parameters()} == {
        torch.float32
    }
    assert (base.downsampling, base.size, base.revision, base.folder) == (8, 128, None, tiny_folder())
    assert len(base.tokenizer) == 49408 and base.tokenizer.model_max_length == 77
    assert base.schedule == NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_prediction_type_comes_from_the_scheduler(tiny_folder, kind):
    assert load_base(tiny_folder(2, kind)).schedule.prediction_type == kind


def test_a_scheduler_of_another_class_and_of_few_words_is_read(damaged):
    PNDMScheduler(1000, 0.00085, 0.012, "scaled_linear", skip_prk_steps=True, steps_offset=1).save_pretrained(
        damaged / "scheduler"
    )
    assert load_base(damaged).schedule.steps_offset == 1
    words = {"num_train_timesteps": 1000, "beta_start": 0.00085, "beta_end": 0.012, "beta_schedule": "scaled_linear"}
    (damaged / "scheduler" / "scheduler_config.json").write_text(json.dumps(words))
    assert load_base(damaged).schedule.prediction_type == "epsilon"


def test_diffusers_opens_the_same_weights(tiny_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder())
    base = load_base(tiny_folder())
    assert isinstance(pipeline.scheduler, DDIMScheduler)
    assert all(same_weights(getattr(base, part), getattr(pipeline, part)) for part in ("unet", "vae", "text_encoder"))


def test_what_diffusers_saves_is_loaded(tiny_folder, tmp_path):
    StableDiffusionPipeline.from_pretrained(tiny_folder()).save_pretrained(tmp_path / "theirs")
    assert same_weights(load_base(tmp_path / "theirs").unet, load_base(tiny_folder()).unet)


def test_a_saved_base_comes_back_and_bf16_halves_it(tiny_base, tmp_path):
    base = tiny_base()
    save_base(base, tmp_path / "same")
    again = load_base(tmp_path / "same")
    assert same_weights(again.unet, base.unet) and again.schedule == base.schedule
    save_base(base, tmp_path / "half", dtype=torch.bfloat16)
    file = "unet/diffusion_pytorch_model.safetensors"
    assert {tensor.dtype for tensor in load_file(tmp_path / "half" / file).values()} == {torch.bfloat16}
    half = load_base(tmp_path / "half").unet
    assert half.dtype == base.unet.dtype == torch.float32
    assert torch.equal(half.conv_in.weight, base.unet.conv_in.weight.to(torch.bfloat16).float())


def test_saving_and_loading_draw_no_bars_and_warn_of_nothing(tiny_base, tmp_path, capfd, monkeypatch):
    warnings = []
    monkeypatch.setattr("diffusers.models.modeling_utils.logger.warning", lambda *words: warnings.append(words))
    base = tiny_base()
    capfd.readouterr()
    save_base(base, tmp_path / "half", dtype=torch.bfloat16)
    load_base(tmp_path / "half")
    assert capfd.readouterr() == ("", "") and warnings == []
    assert logging.is_progress_bar_enabled(), "others may draw theirs"


def test_networks_with_convolutions_become_channels_last(tiny_base):
    base = tiny_base().to("cpu")
    assert base.unet.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert base.vae.encoder.conv_in.weight.is_contiguous(memory_format=torch.channels_last)
    assert base.device == torch.device("cpu")


def test_old_tokenizer_files_are_read(damaged, tiny_base):
    tokenizer = tiny_base().tokenizer
    merges = Path(__file__).parents[3] / "plugins" / "stable_diffusion" / "clip_vocabulary" / "merges.txt"
    folder = damaged / "tokenizer"
    (folder / "tokenizer.json").unlink()
    (folder / "vocab.json").write_text(json.dumps(tokenizer.get_vocab()))
    (folder / "merges.txt").write_text("#version: 0.2\n" + merges.read_text())
    text = "A pigmented lesion, 6.5 mm, on <b> skin"
    assert load_base(damaged).tokenizer(text)["input_ids"] == tokenizer(text)["input_ids"]


def test_tensors_by_their_older_names_are_read(damaged, loaded_base):
    """The names of transformers 4 and of diffusers before 0.12, under which the published bases lie on the hub."""
    (file,) = (damaged / "text_encoder").glob("*.safetensors")
    named = {f"text_model.{name}": tensor for name, tensor in load_file(file).items()}
    save_file({**named, "text_model.embeddings.position_ids": torch.arange(77)[None]}, file, {"format": "pt"})
    (file,) = (damaged / "vae").glob("*.safetensors")
    older = {"to_q": "query", "to_k": "key", "to_v": "value", "to_out.0": "proj_attn"}
    named = load_file(file)
    for new, old in older.items():
        named = {name.replace(f"attentions.0.{new}", f"attentions.0.{old}"): named[name] for name in named}
    save_file(named, file, {"format": "pt"})
    base, expected = load_base(damaged), loaded_base(2, "epsilon")
    assert same_weights(base.text_encoder, expected.text_encoder) and same_weights(base.vae, expected.vae)


@pytest.mark.parametrize("part", PARTS)
def test_a_missing_part_is_named(damaged, part):
    shutil.rmtree(damaged / part)
    with pytest.raises(CheckpointError, match=f"base is no Stable Diffusion base: {part}/ is missing"):
        load_base(damaged)


@pytest.mark.parametrize("where", ["nowhere", "./nowhere", "/no/where/at/all", ""])
def test_a_missing_folder_is_named(where, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    with pytest.raises(CheckpointError, match=r"no Stable Diffusion base at|unet/ is missing"):
        load_base(where)


def test_a_file_is_no_base(tmp_path):
    (tmp_path / "model.safetensors").touch()
    with pytest.raises(CheckpointError, match="no Stable Diffusion base at"):
        load_base(tmp_path / "model.safetensors")


def test_networks_of_another_class_are_refused(damaged):
    edit(damaged / "unet" / "config.json", _class_name="FluxTransformer2DModel")
    with pytest.raises(CheckpointError, match="unet/ cannot be used: it holds a FluxTransformer2DModel, not a UNet2D"):
        load_base(damaged)
    edit(damaged / "unet" / "config.json", _class_name="UNet2DConditionModel")
    edit(damaged / "text_encoder" / "config.json", architectures=["CLIPTextModelWithProjection"])
    with pytest.raises(CheckpointError, match="text_encoder/ cannot be used: it holds a CLIPTextModelWithProjection"):
        load_base(damaged)


@pytest.mark.parametrize("part", ["unet", "text_encoder"])
def test_a_tensor_that_is_missing_is_never_made_up(damaged, part):
    (file,) = (damaged / part).glob("*.safetensors")
    tensors = load_file(file)
    name = min(tensors)
    save_file({key: value for key, value in tensors.items() if key != name}, file, {"format": "pt"})
    with pytest.raises(CheckpointError, match=f"{part}/ cannot be used: its weights lack 1 tensors, .*first"):
        load_base(damaged)


def test_damaged_weights_and_configurations_are_one_line(damaged):
    (file,) = (damaged / "vae").glob("*.safetensors")
    file.write_bytes(file.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="vae/ cannot be used"):
        load_base(damaged)
    (damaged / "unet" / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match="unet/ cannot be used"):
        load_base(damaged)


def test_pickled_weights_are_not_read(damaged):
    (file,) = (damaged / "unet").glob("*.safetensors")
    torch.save(load_file(file), damaged / "unet" / "diffusion_pytorch_model.bin")
    file.unlink()
    with pytest.raises(CheckpointError, match=r"unet/ cannot be used: .*safetensors"):
        load_base(damaged)


def test_a_tokenizer_without_files_is_refused(damaged):
    (damaged / "tokenizer" / "tokenizer.json").unlink()
    with pytest.raises(CheckpointError, match=r"tokenizer/ cannot be used: it has neither tokenizer\.json nor"):
        load_base(damaged)


def test_schedules_of_other_kinds_are_refused(damaged):
    edit(damaged / "scheduler" / "scheduler_config.json", prediction_type="flow")
    with pytest.raises(CheckpointError, match="scheduler/ cannot be used: prediction_type must be one of epsilon"):
        load_base(damaged)


def test_other_than_four_latent_channels_are_refused(tiny_base, tiny_folder, tmp_path):
    from diffusers import UNet2DConditionModel

    base = tiny_base()
    inpainting = UNet2DConditionModel.from_config({**base.unet.config, "in_channels": 9})
    shutil.copytree(tiny_folder(), tmp_path / "base")
    inpainting.save_pretrained(tmp_path / "base" / "unet")
    with pytest.raises(CheckpointError, match="unet in_channels is 9, not 4"):
        load_base(tmp_path / "base")


def test_an_encoder_of_another_width_or_vocabulary_is_refused(damaged, tiny_base):
    from transformers import CLIPTextModel

    encoder = tiny_base().text_encoder
    config = encoder.config.to_dict()
    CLIPTextModel(type(encoder.config)(**{**config, "hidden_size": 64})).save_pretrained(damaged / "text_encoder")
    with pytest.raises(CheckpointError, match="attends to text 32 wide, the encoder's is 64 wide"):
        load_base(damaged)
    CLIPTextModel(type(encoder.config)(**{**config, "vocab_size": 99})).save_pretrained(damaged / "text_encoder")
    with pytest.raises(CheckpointError, match="the tokenizer has 49408 tokens, the encoder knows 99"):
        load_base(damaged)


def test_a_base_that_ships_with_the_package_goes_by_its_name(tiny_folder, monkeypatch):
    monkeypatch.setattr(checkpoints, "SHIPPED", tiny_folder().parent)
    assert load_base(f"builtin:{tiny_folder().name}").folder == tiny_folder()
    with pytest.raises(CheckpointError, match="there are 2-epsilon"):
        load_base("builtin:derm-huge")


@pytest.fixture
def hub(tmp_path, monkeypatch) -> Path:
    """An empty cache of the hub, with no way to the hub itself."""
    import huggingface_hub.constants

    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path / "hub"))
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    return tmp_path / "hub"


def test_a_hub_name_is_loaded_from_its_cache_with_its_revision(hub, tiny_folder):
    model, revision = hub / "models--clinic--tiny", "c" * 40
    shutil.copytree(tiny_folder(), model / "snapshots" / revision)
    (model / "refs").mkdir()
    (model / "refs" / "main").write_text(revision)
    base = load_base("clinic/tiny")
    assert (base.revision, base.folder) == (revision, model / "snapshots" / revision)
    assert load_base(f"clinic/tiny@{revision}").revision == revision
    shutil.rmtree(base.folder / "vae")
    with pytest.raises(CheckpointError, match="vae/ is missing"):
        load_base("clinic/tiny")


def test_a_hub_that_cannot_be_reached_is_one_line(hub):
    with pytest.raises(CheckpointError, match=r"neither a folder nor in the hub's cache, .* give a local folder"):
        load_base("clinic/unknown")


def test_only_configurations_and_safetensors_are_fetched_from_the_hub(hub, monkeypatch, tiny_folder):
    import huggingface_hub

    asked = {}

    def fetch(model, *, revision, allow_patterns=(), ignore_patterns=(), local_files_only=False):
        if local_files_only:
            raise huggingface_hub.errors.LocalEntryNotFoundError("nothing here")
        asked.update(model=model, revision=revision, allow=allow_patterns, ignore=ignore_patterns)
        return str(tiny_folder())

    monkeypatch.setattr(huggingface_hub, "snapshot_download", fetch)
    load_base("clinic/tiny@v1")
    assert (asked["model"], asked["revision"]) == ("clinic/tiny", "v1")
    assert not [pattern for pattern in asked["allow"] if pattern.endswith((".bin", ".py", "*"))]
    assert "unet/*.safetensors" in asked["allow"] and "*.fp16.safetensors" in asked["ignore"]


def test_a_tiny_base_is_a_function_of_its_seed(tmp_path):
    first, again, other = (
        tiny_stable_diffusion(tmp_path / name, seed=seed) for name, seed in (("a", 3), ("b", 3), ("c", 4))
    )
    assert tree_hash(first) == tree_hash(again) != tree_hash(other)


def test_making_a_tiny_base_leaves_the_random_state_alone(tmp_path):
    torch.manual_seed(7)
    expected = torch.rand(3)
    torch.manual_seed(7)
    tiny_stable_diffusion(tmp_path / "tiny")
    assert torch.equal(torch.rand(3), expected)


@pytest.mark.parametrize("sizes", [{"latent_size": 12}, {"latent_size": 0}, {"downsampling": 3}, {"downsampling": 0}])
def test_sizes_that_do_not_fit_are_refused(tmp_path, sizes):
    with pytest.raises(ValueError, match=next(iter(sizes))):
        tiny_stable_diffusion(tmp_path / "tiny", **sizes)
