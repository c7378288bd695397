"""Trainer skindualgen: what it learns, what it leaves, that being killed changes nothing, what it refuses."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from peft import PeftModel
from safetensors.torch import load_file

from lesionforge.core.batch import Batch
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.durable import tree_hash
from lesionforge.core.errors import ConfigError, DataError
from lesionforge.plugins.skindualgen import training
from lesionforge.plugins.skindualgen.checkpoint import load_adapted
from lesionforge.plugins.skindualgen.examples import prompted_examples
from lesionforge.plugins.skindualgen.network import PairNetwork, widened
from lesionforge.plugins.skindualgen.plugin import SkinDualGenGenerator, SkinDualGenGeneratorConfig, SkinDualGenTrainer
from lesionforge.plugins.skindualgen.wording import with_template
from lesionforge.plugins.stable_diffusion import kept
from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base

from .conftest import CONTEXT

CPU = torch.device("cpu")


def terms_of(base: StableDiffusionBase, data: Dataset, config) -> dict[str, float]:
    """The terms of the loss over all of ``data``, always at the same timesteps and with the same noise."""
    with TemporaryDirectory() as output:
        examples = prompted_examples(data, config, CONTEXT, Path(output))
    tuning = training.FineTuning(base, examples, config, CPU)
    layers = base.vae.encoder.conv_in, base.vae.decoder.conv_out
    network = PairNetwork(base, base.unet, *layers)  # type: ignore[arg-type]
    images, masks = examples.pairs(range(len(examples)), CPU)
    torch.manual_seed(0)
    with torch.no_grad():
        timesteps = torch.linspace(0, 999, len(examples)).long()
        prediction = tuning.predict(network, images, masks, list(examples.prompts), timesteps)
    return {name: float(value) for name, value in tuning.terms(prediction, masks).items()}


def test_a_few_dozen_steps_lower_every_term_on_unseen_pairs(tiny_base, adapter, phantoms, settings):
    untrained = load_base(tiny_base)
    widened(untrained)
    unseen = phantoms.where(lambda record: record.split != "train")
    before, after = (terms_of(base, unseen, settings()) for base in (untrained, load_adapted(adapter)[0]))
    assert all(after[name] < 0.98 * before[name] for name in ("diffusion", "bce", "dice", "loss"))


def test_what_it_leaves_is_small_and_what_peft_loads(tiny_base, adapter):
    files = {path.relative_to(adapter).as_posix() for path in adapter.rglob("*") if path.is_file()}
    published = {name for name in files if not name.startswith("state/")}
    lora = {"unet_lora/adapter_config.json", "unet_lora/adapter_model.safetensors"}
    assert published == {"config.json", "curves.csv", "vae.safetensors", *lora}
    weights = sum(path.stat().st_size for path in adapter.rglob("*.safetensors"))
    assert weights < (tiny_base / "unet" / "diffusion_pytorch_model.safetensors").stat().st_size / 2
    unet = PeftModel.from_pretrained(load_base(tiny_base).unet, str(adapter / "unet_lora")).merge_and_unload()
    ours = load_adapted(adapter)[0]
    pairs = zip(unet.parameters(), ours.unet.parameters(), strict=True)
    assert all(torch.equal(theirs, mine) for theirs, mine in pairs)
    saved, plain = load_file(adapter / "vae.safetensors"), load_base(tiny_base).vae.state_dict()
    assert torch.equal(saved["encoder.conv_in.weight"][:, :3], plain["encoder.conv_in.weight"])
    assert bool(saved["encoder.conv_in.weight"][:, 3:].any())
    with (adapter / "curves.csv").open() as file:
        assert {"step", "loss", "diffusion", "bce", "dice"} <= set(next(csv.DictReader(file)))


@pytest.mark.parametrize("changed", [{"prompts": "captions"}, {"gradient_checkpointing": True, "keep_rgb": False}])
def test_killed_and_resumed_is_uninterrupted(settings, train, phantoms, tmp_path, monkeypatch, changed):
    config, data = settings(**changed), phantoms.take(range(8))
    whole = train(config, data, tmp_path / "whole")

    original = training.FineTuning.losses
    calls = iter(range(3))

    def dying(self, network, rows):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(self, network, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.FineTuning, "losses", dying)
        train(config, data, tmp_path / "killed")
    assert not (tmp_path / "killed" / "config.json").exists()
    with monkeypatch.context() as patch:  # not captioned again
        patch.setattr(kept, "Captioner", None)
        resumed = train(config, data, tmp_path / "killed")
    for part in ("unet_lora", "vae.safetensors", "config.json", "curves.csv"):
        assert tree_hash(whole / part) == tree_hash(resumed / part), part
    assert (resumed / "captions.jsonl").exists() is (config.prompts == "captions")


def test_strictly_frozen_leaves_the_autoencoder_as_it_began(settings, train, phantoms, tiny_base, tmp_path):
    folder = train(settings(strict_frozen=True, steps=2), phantoms.take(range(4)), tmp_path / "out")
    first, last = widened(load_base(tiny_base))
    saved = load_file(folder / "vae.safetensors")
    assert not bool(saved["encoder.conv_in.weight"][:, 3:].any())
    assert torch.equal(saved["decoder.conv_out.weight"], torch.cat((last.rgb.weight, last.mask.weight)))
    assert torch.equal(saved["encoder.conv_in.weight"][:, :3], first.rgb.weight)


def test_pairs_are_pictured(settings, train, phantoms, tmp_path):
    folder = train(settings(steps=2, snapshot_every=1, snapshot_count=3), phantoms.take(range(4)), tmp_path / "out")
    assert sorted(path.name for path in (folder / "pairs").iterdir()) == ["step-000001.png", "step-000002.png"]


def test_pictures_are_drawn_in_the_precision_of_the_training(settings, phantoms, tmp_path):
    trainer = SkinDualGenTrainer(settings(steps=1, snapshot_every=1))
    trainer.setup(replace(CONTEXT, precision="bf16"))
    trainer.train(phantoms.take(range(4)), None, tmp_path)
    assert [file.name for file in (tmp_path / "pairs").iterdir()] == ["step-000001.png"]


def test_class_prompts_are_the_template_and_captions_begin_with_it(settings, phantoms, tmp_path):
    data = phantoms.take([0])
    (prompt,) = prompted_examples(data, settings(), CONTEXT, tmp_path).prompts
    (tmp_path / "written").mkdir()
    words = data.records[0].label.replace("_", " ")
    assert prompt == f"a dermoscopic lesion photo of {words} for skin cancer diagnosis"
    captioned = Dataset("captioned", (replace(data.records[0], caption="A dark lesion."),))
    of_data = settings(prompts="captions", captioner="")
    assert prompted_examples(captioned, of_data, CONTEXT, tmp_path).prompts == [f"{prompt}, A dark lesion."]
    (written,) = prompted_examples(data, settings(prompts="captions"), CONTEXT, tmp_path / "written").prompts
    assert written.startswith(f"{prompt}, ") and written.count("skin cancer diagnosis") == 1


def test_icd_11_terms_are_trained_with_and_sampled_with(settings, train, phantoms, tmp_path):
    first = replace(phantoms.records[0], label="nevus", caption="A dark naevus.")
    data, wanted = (
        Dataset("named", (first,)),
        "a dermoscopic lesion photo of melanocytic naevus for skin cancer diagnosis",
    )
    assert prompted_examples(data, settings(terms="icd-11"), CONTEXT, tmp_path).prompts == [wanted]
    of_data = settings(terms="icd-11", prompts="captions", captioner="")
    assert prompted_examples(data, of_data, CONTEXT, tmp_path).prompts == [f"{wanted}, A dark naevus."]
    for begun in ("A dermoscopic lesion photo of nevus for skin cancer diagnosis, dark.", f"{wanted}, dark."):
        assert with_template(begun, "nevus", "icd-11") == f"{wanted}, dark."
    folder = train(settings(terms="icd-11", steps=1), data, tmp_path / "out")
    sampler = SkinDualGenGenerator(SkinDualGenGeneratorConfig(checkpoint=str(folder), num_inference_steps=1))
    sampler.setup(CONTEXT)
    assert sampler(Batch.blank(1, seed=1)).prompts == (wanted,)


def test_captions_are_not_mirrored(settings):
    assert settings().mirrored and not settings(flips=False).mirrored
    assert not settings(prompts="captions").mirrored
    with pytest.raises(ValueError, match="flips = true contradicts prompts"):
        settings(prompts="captions", flips=True)


def test_a_mask_that_is_not_binary_is_named(settings, train, tmp_path):
    image, mask = np.zeros((32, 32, 3), np.uint8), np.full((32, 32), 200, np.uint8)
    data = Dataset("grey", (Record("one", image, mask, label="nevus"),))
    with pytest.raises(DataError, match="dataset grey: the mask of image 'one' is not binary, it holds 200"):
        train(settings(), data, tmp_path / "out")


def test_missing_masks_and_labels_are_named(settings, train, phantoms, tmp_path):
    bare = Dataset("bare", tuple(replace(record, mask=None) for record in phantoms.records[:3]))
    with pytest.raises(DataError, match="dataset bare has no masks"):
        train(settings(), bare, tmp_path / "out")
    unnamed = Dataset("unnamed", tuple(replace(record, label=None) for record in phantoms.records[:3]))
    with pytest.raises(DataError, match="dataset unnamed: no image with a mask has a label"):
        train(settings(), unnamed, tmp_path / "out")


def test_images_without_mask_or_label_are_left_out(settings, phantoms, tmp_path):
    first, second, third = phantoms.records[:3]
    data = Dataset("partly", (replace(first, label=None), second, replace(third, mask=None)))
    assert prompted_examples(data, settings(), CONTEXT, tmp_path).dataset.ids == (second.image_id,)


def test_unknown_targets_and_sizes_are_refused(settings, train, phantoms, tmp_path: Path):
    with pytest.raises(ConfigError, match=r"targets = \['to_nothing'\] do not fit the base"):
        train(settings(targets=("to_nothing",)), phantoms.take(range(2)), tmp_path / "out")
    with pytest.raises(ConfigError, match="size = 30 is no multiple of 4"):
        train(settings(size=30), phantoms.take(range(2)), tmp_path / "out")
