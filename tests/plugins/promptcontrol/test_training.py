"""Trainer promptcontrol: what it learns, what it leaves, and that being killed changes nothing."""

from __future__ import annotations

import json
from pathlib import Path
from tempfile import TemporaryDirectory

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel
from torch.nn.functional import mse_loss

from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.durable import tree_hash
from lesionforge.core.errors import CheckpointError, ConfigError, DataError
from lesionforge.plugins.promptcontrol import training
from lesionforge.plugins.promptcontrol.controlnet import condition_images, fresh_controlnet
from lesionforge.plugins.promptcontrol.plugin import PromptControlTrainer, PromptControlTrainerConfig
from lesionforge.plugins.stable_diffusion import kept
from lesionforge.plugins.stable_diffusion.base import load_base
from lesionforge.plugins.stable_diffusion.fingerprint import base_fingerprint
from lesionforge.plugins.stable_diffusion.prompts import encode_prompts

CONTEXT = Context(torch.device("cpu"), "fp32", "control", 3)


def settings(base: Path, **changed) -> PromptControlTrainerConfig:
    values = {"size": 32, "captioner": "", "steps": 4, "batch_size": 4, "checkpoint_every": 2, "learning_rate": 1e-3}
    return PromptControlTrainerConfig.model_validate({"base": str(base), **values, **changed})


def train(config: PromptControlTrainerConfig, data: Dataset, output: Path) -> Path:
    output.mkdir(exist_ok=True)
    trainer = PromptControlTrainer(config)
    trainer.setup(CONTEXT)
    trainer.train(data, None, output)
    return output


def training_of(folder: Path, data: Dataset, **changed) -> training.ControlTraining:
    config, base = settings(folder, **changed), load_base(folder)
    with TemporaryDirectory() as output:
        examples = training.prepared_examples(base, data, config, CONTEXT, Path(output))
    return training.ControlTraining(base, examples, config.empty_share, torch.device("cpu"))


def opened_network(tuning: training.ControlTraining) -> ControlNetModel:
    """A ControlNet that lets something through."""
    network = fresh_controlnet(tuning.base, 0)
    with torch.no_grad():
        for block in (*network.controlnet_down_blocks, network.controlnet_mid_block):
            block.weight.fill_(0.02)
    return network


def test_training_begins_as_the_base_bit_for_bit(tiny_base, phantoms):
    tuning = training_of(tiny_base, phantoms.take(range(4)))
    noisy, timesteps = torch.randn(2, 4, 8, 8), torch.tensor([10, 700])
    prompts, masks = ["nevus.", ""], torch.ones(2, 1, 32, 32)
    with torch.no_grad():
        made = tuning.predict(fresh_controlnet(tuning.base, 5), noisy, timesteps, prompts, masks)
        expected = tuning.base.unet(noisy, timesteps, encode_prompts(tuning.base, prompts).states)[0]
    assert torch.equal(made, expected)


def test_the_copy_is_the_bases_encoder_and_only_the_masks_way_in_is_random(tiny_base):
    base = load_base(tiny_base)
    network, again, other = (fresh_controlnet(base, seed) for seed in (1, 1, 2))
    weights, original = network.state_dict(), base.unet.state_dict()
    copied = {name for name in weights if name in original}
    assert all(torch.equal(weights[name], original[name]) for name in copied)
    assert {name.split(".")[0] for name in copied} >= {"conv_in", "time_embedding", "down_blocks", "mid_block"}
    differing = {name for name in weights if not torch.equal(weights[name], other.state_dict()[name])}
    assert differing and all(name.startswith("controlnet_cond_embedding") for name in differing)
    assert all(torch.equal(weights[name], again.state_dict()[name]) for name in weights)
    assert condition_images(torch.ones(2, 1, 8, 8)).shape == (2, 3, 8, 8)


def test_the_loss_is_the_equation(tiny_base, phantoms):
    tuning = training_of(tiny_base, phantoms, empty_share=0.0)
    network, rows = opened_network(tuning), [0, 5, 9]
    torch.manual_seed(1)
    loss = tuning.losses(network, rows)["loss"]
    torch.manual_seed(1)
    torch.rand(3)
    examples, base = tuning.examples, tuning.base
    clean = examples.latents.means[rows] + examples.latents.deviations[rows] * torch.randn(3, 4, 8, 8)
    noise, timesteps = torch.randn(3, 4, 8, 8), torch.randint(1000, (3,))
    abar = base.schedule.ddim().alphas_cumprod[timesteps].view(3, 1, 1, 1)
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    labels = [phantoms.records[row].label.replace("_", " ") for row in rows]
    states = encode_prompts(base, [f"{label}. A brown lesion." for label in labels]).states
    masks = torch.from_numpy(phantoms.masks_array(rows)).float()[:, None].repeat(1, 3, 1, 1)
    skips, middle = network(noisy, timesteps, states, controlnet_cond=masks, return_dict=False)
    predicted = base.unet(
        noisy, timesteps, states, down_block_additional_residuals=skips, mid_block_additional_residual=middle
    ).sample
    torch.testing.assert_close(loss, mse_loss(predicted, noise))


def test_empty_prompts_are_as_frequent_as_asked(tiny_base, phantoms, monkeypatch):
    seen = []
    for share in (0.0, 0.5, 1.0):
        tuning = training_of(tiny_base, phantoms, empty_share=share)
        asked: list[str] = []

        def predict(network, noisy, timesteps, prompts, masks, asked=asked):
            asked.extend(prompts)
            return noisy

        monkeypatch.setattr(tuning, "predict", predict)
        torch.manual_seed(0)
        for _ in range(25):
            tuning.losses(tuning.base.unet, [0, 1, 2, 3])
        seen.append(sum(not prompt for prompt in asked) / len(asked))
    assert seen[0] == 0 and seen[2] == 1 and 0.35 < seen[1] < 0.65


def test_training_lowers_the_loss_and_leaves_the_base(tiny_base, phantoms, tmp_path):
    data = phantoms.take(range(16))
    before = tree_hash(tiny_base)
    config = settings(tiny_base, steps=60, learning_rate=3e-3, checkpoint_every=1000, empty_share=0.0)
    folder = train(config, data, tmp_path / "out")
    tuning = training_of(tiny_base, data, empty_share=0.0)
    fresh = fresh_controlnet(tuning.base, CONTEXT.seed)
    trained = ControlNetModel.from_pretrained(folder / "controlnet")

    def loss(network) -> float:
        torch.manual_seed(7)
        with torch.no_grad():
            return sum(float(tuning.losses(network, list(range(16)))["loss"]) for _ in range(6)) / 6

    assert loss(trained) < 0.9 * loss(fresh)
    assert tree_hash(tiny_base) == before


@pytest.mark.parametrize("changed", [{"captioner": "derm-prompt"}, {"gradient_checkpointing": True}])
def test_killed_and_resumed_is_uninterrupted(tiny_base, phantoms, tmp_path, monkeypatch, changed):
    config, data = settings(tiny_base, **changed), phantoms.take(range(8))
    whole = train(config, data, tmp_path / "whole")
    original, calls = training.ControlTraining.losses, iter(range(3))

    def dying(self, network, rows):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(self, network, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.ControlTraining, "losses", dying)
        train(config, data, tmp_path / "killed")
    with monkeypatch.context() as patch:  # neither captioned nor encoded again
        patch.setattr(kept, "Captioner", None)
        patch.setattr(kept, "posterior_latents", None)
        resumed = train(config, data, tmp_path / "killed")
    for part in ("controlnet", "promptcontrol.json", "curves.csv", "captions.jsonl"):
        assert tree_hash(whole / part) == tree_hash(resumed / part), part


def test_what_it_leaves_is_safetensors_with_the_bases_fingerprint(tiny_base, phantoms, tmp_path):
    folder = train(settings(tiny_base, steps=1), phantoms.take(range(4)), tmp_path / "out")
    names = {path.name for path in (folder / "controlnet").iterdir()}
    assert names == {"config.json", "diffusion_pytorch_model.safetensors"}
    facts = json.loads((folder / "promptcontrol.json").read_text())
    assert facts == {"base_sha256": base_fingerprint(load_base(tiny_base)), "size": 32}


def test_images_without_a_mask_are_left_out_and_none_with_one_is_an_error(tiny_base, phantoms, tmp_path):
    first, *others = phantoms.records[:4]
    bare = tuple(Record(r.image_id, r.image, None, caption=r.caption) for r in others)
    tuning = training_of(tiny_base, Dataset("mixed", (first, *bare)))
    assert len(tuning.examples.prompts) == 1
    with pytest.raises(DataError, match="dataset bare has no masks"):
        train(settings(tiny_base), Dataset("bare", bare), tmp_path / "out")


def test_other_errors_say_what_is_wrong(tiny_base, phantoms, tmp_path):
    silent = Dataset("silent", tuple(Record(r.image_id, r.image, r.mask) for r in phantoms.records[:3]))
    with pytest.raises(DataError, match="dataset silent has no caption for image 'phantom-000000'"):
        train(settings(tiny_base), silent, tmp_path / "out")
    with pytest.raises(ConfigError, match="size = 30 is no multiple of 4"):
        train(settings(tiny_base, size=30), phantoms, tmp_path / "out")
    with pytest.raises(CheckpointError, match="no Stable Diffusion base"):
        train(settings(tmp_path / "nowhere"), phantoms, tmp_path / "out")


def test_a_captioner_that_is_no_annotator_is_refused_before_any_work(tiny_base):
    trainer = PromptControlTrainer(settings(tiny_base, captioner="mask-quality"))
    with pytest.raises(ConfigError, match="mask-quality is a filter, not an annotator"):
        trainer.setup(CONTEXT)
