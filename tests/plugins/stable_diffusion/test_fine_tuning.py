"""Fine-tuning: its loss with and without DreamBooth's prior, what it leaves, that being killed changes nothing."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch.nn.functional import mse_loss

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.core.durable import tree_hash
from lesionforge.core.errors import CheckpointError, ConfigError, DataError
from lesionforge.core.seeding import case_seed
from lesionforge.plugins.stable_diffusion import kept
from lesionforge.plugins.stable_diffusion.adaptation import save_learnt, trainable_unet
from lesionforge.plugins.stable_diffusion.base import load_base
from lesionforge.plugins.stable_diffusion.fine_tuning import prior as priors
from lesionforge.plugins.stable_diffusion.fine_tuning import training
from lesionforge.plugins.stable_diffusion.fine_tuning.plugin import FineTuningConfig, FineTuningTrainer, TextToImage
from lesionforge.plugins.stable_diffusion.prompts import encode_prompts
from lesionforge.plugins.stable_diffusion.sampling import decode, sample
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion
from lesionforge.testing import assert_contract

CONTEXT = Context(torch.device("cpu"), "fp32", "tuning", 3)
DREAMBOOTH = {
    "prompt": "a photo of sks {label}",
    "prior_prompt": "a photo of a {label}",
    "prior_count": 5,
    "prior_steps": 2,
    "prompt_dropout": 0.0,
}


@pytest.fixture(scope="module")
def base(tmp_path_factory) -> Path:
    """A random base for 32 px with latents of 8 x 8."""
    return tiny_stable_diffusion(tmp_path_factory.mktemp("base"), latent_size=8, downsampling=4)


@pytest.fixture(scope="module")
def data() -> Dataset:
    """Ten phantoms of two classes with captions."""
    phantoms = lf.load_dataset("phantom(count=10, size=32, hair=0, ruler=0)")
    named = (
        replace(record, caption=f"Spot {number}.", label=("nevus", "seborrheic_keratosis")[number % 2])
        for number, record in enumerate(phantoms.records)
    )
    return replace(phantoms, records=tuple(named))


def settings(base: Path, **changed) -> FineTuningConfig:
    values = {"size": 32, "captioner": "", "steps": 4, "batch_size": 4, "checkpoint_every": 2, "snapshot_every": 0}
    return FineTuningConfig.model_validate({"base": str(base), "learning_rate": 1e-3, **values, **changed})


def train(config: FineTuningConfig, data: Dataset, output: Path) -> Path:
    output.mkdir(exist_ok=True)
    trainer = FineTuningTrainer(config)
    trainer.setup(CONTEXT)
    trainer.train(data, None, output)
    return output


def tuning_of(folder: Path, data: Dataset, output: Path, **changed) -> training.FineTuning:
    config, base = settings(folder, **changed), load_base(folder)
    examples = training.prepared_examples(base, data, config, CONTEXT, output)
    named = priors.prior_prompts(config, data.classes) if config.prior_prompt else []
    prior = priors.kept_prior(base, config, named, CONTEXT, output) if named else None
    return training.FineTuning(base, examples, prior, config, torch.device("cpu"))


def predicted_errors(base, clean, prompts):
    """The squared errors of the base's prediction, from the noise and the timesteps that come next."""
    noise, timesteps = torch.randn(clean.shape), torch.randint(1000, (len(clean),))
    abar = base.schedule.ddim().alphas_cumprod[timesteps].view(-1, 1, 1, 1)
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    return base.unet(noisy, timesteps, encode_prompts(base, prompts).states).sample, noise


def test_the_plain_loss_is_the_bases_own(base, data, tmp_path):
    tuning, rows = tuning_of(base, data, tmp_path, prompt_dropout=0.0), [0, 5, 9]
    torch.manual_seed(1)
    found = tuning.losses(tuning.base.unet, rows)
    torch.manual_seed(1)
    torch.rand(3)
    latents = tuning.examples.latents
    clean = latents.means[rows] + latents.deviations[rows] * torch.randn(3, 4, 8, 8)
    predicted, noise = predicted_errors(tuning.base, clean, ["Spot 0.", "Spot 5.", "Spot 9."])
    assert set(found) == {"loss"}
    torch.testing.assert_close(found["loss"], mse_loss(predicted, noise))


def test_dreambooths_loss_is_the_equation(base, data, tmp_path):
    tuning, rows = tuning_of(base, data, tmp_path, **DREAMBOOTH, prior_weight=0.5), [1, 4]
    torch.manual_seed(1)
    found = tuning.losses(tuning.base.unet, rows)
    torch.manual_seed(1)
    torch.rand(2)
    latents, prior = tuning.examples.latents, tuning.prior
    clean = latents.means[rows] + latents.deviations[rows] * torch.randn(2, 4, 8, 8)
    chosen = torch.randint(5, (2,)).tolist()
    prompts = ["a photo of sks seborrheic keratosis", "a photo of sks nevus"]
    prompts += [f"a photo of a {('nevus', 'seborrheic keratosis')[number % 2]}" for number in chosen]
    predicted, noise = predicted_errors(tuning.base, torch.cat((clean, prior.latents[chosen])), prompts)
    images, own = mse_loss(predicted[:2], noise[:2]), mse_loss(predicted[2:], noise[2:])
    torch.testing.assert_close(found["images"], images)
    torch.testing.assert_close(found["prior"], own)
    torch.testing.assert_close(found["loss"], images + 0.5 * own)


def test_the_prior_is_what_the_base_draws(base, data, tmp_path):
    tuning = tuning_of(base, data, tmp_path, **DREAMBOOTH)
    assert tuning.prior.prompts[:3] == ["a photo of a nevus", "a photo of a seborrheic keratosis", "a photo of a nevus"]
    seeds = [case_seed(CONTEXT.seed, number) for number in range(5)]
    drawn = sample(load_base(base), tuning.prior.prompts, seeds, context=CONTEXT, steps=2, size=32, stream="prior")
    torch.testing.assert_close(tuning.prior.latents, drawn)
    assert (tmp_path / "prior" / "step-000000.png").is_file()


def test_empty_prompts_are_as_frequent_as_asked(base, data, tmp_path, monkeypatch):
    for share, expected in ((0.0, 0.0), (0.5, 0.5), (1.0, 1.0)):
        tuning, asked = tuning_of(base, data, tmp_path, prompt_dropout=share), []

        def errors(network, clean, prompts, asked=asked):
            asked.extend(prompts)
            return clean.mean((1, 2, 3))

        monkeypatch.setattr(tuning, "_errors", errors)
        torch.manual_seed(0)
        for _ in range(25):
            tuning.losses(tuning.base.unet, [0, 1, 2, 3])
        assert abs(sum(not prompt for prompt in asked) / len(asked) - expected) < 0.15


@pytest.mark.parametrize("changed", [{}, {"lora_rank": 2, "learning_rate": 2e-2}])
def test_training_lowers_the_loss_and_leaves_a_base(base, data, tmp_path, changed):
    before = tree_hash(base)
    config = {"steps": 40, "learning_rate": 3e-3, "warmup_steps": 5, "checkpoint_every": 1000, **changed}
    folder = train(settings(base, **config), data, tmp_path / "out")
    tuning = tuning_of(base, data, tmp_path / "out")

    def loss(network) -> float:
        torch.manual_seed(7)
        with torch.no_grad():
            return sum(float(tuning.losses(network, list(range(10)))["loss"]) for _ in range(6)) / 6

    trained = load_base(folder)
    assert loss(trained.unet) < 0.95 * loss(tuning.base.unet)
    for weights in ("vae/diffusion_pytorch_model.safetensors", "text_encoder/model.safetensors"):
        assert tree_hash(folder / weights) == tree_hash(base / weights)
    assert tree_hash(base) == before


@pytest.mark.parametrize(
    "changed", [{}, DREAMBOOTH, {"lora_rank": 2, "ema_decay": 0.9, "gradient_checkpointing": True}]
)
def test_killed_and_resumed_is_uninterrupted(base, data, tmp_path, monkeypatch, changed):
    config = settings(base, **changed)
    whole = train(config, data, tmp_path / "whole")
    original, calls = training.FineTuning.losses, iter(range(3))

    def dying(self, network, rows):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(self, network, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.FineTuning, "losses", dying)
        train(config, data, tmp_path / "killed")
    with monkeypatch.context() as patch:  # neither encoded nor drawn again
        patch.setattr(kept, "posterior_latents", None)
        patch.setattr(priors, "sample", None)
        resumed = train(config, data, tmp_path / "killed")
    for part in ("unet", "curves.csv"):
        assert tree_hash(whole / part) == tree_hash(resumed / part), part


def test_snapshots_show_what_was_learnt_so_far(base, data, tmp_path):
    config = settings(base, snapshot_every=4, snapshot_count=2, lora_rank=2)
    folder = train(config, data, tmp_path / "out")
    assert [file.name for file in (folder / "samples").iterdir()] == ["step-000004.png"]


def test_lora_lies_within_the_base_and_is_part_of_the_weights_that_are_saved(base, tmp_path):
    loaded, plain = load_base(base), load_base(base)
    network = trainable_unet(loaded, lora_rank=2, gradient_checkpointing=False, seed=0)
    for name, weight in network.named_parameters():
        assert weight.requires_grad == ("lora" in name)
        if "lora_B" in name:
            torch.nn.init.normal_(weight, std=0.5)
    arguments = (torch.randn(1, 4, 8, 8), torch.tensor([5]), torch.randn(1, 77, 32))
    with torch.no_grad():
        adapted = loaded.unet(*arguments).sample
        assert not torch.allclose(adapted, plain.unet(*arguments).sample, atol=1e-3)
        save_learnt(loaded, network, 64, tmp_path)
        saved = load_base(tmp_path)
        torch.testing.assert_close(saved.unet(*arguments).sample, adapted, atol=1e-4, rtol=1e-4)
    assert set(saved.unet.state_dict()) == set(plain.unet.state_dict())
    assert saved.size == 64 != plain.size


def test_errors_say_what_is_wrong(base, data, tmp_path):
    bare = replace(data, records=tuple(replace(record, label=None, caption=None) for record in data.records))
    with pytest.raises(DataError, match="has no caption"):
        train(settings(base), bare, tmp_path / "out")
    with pytest.raises(DataError, match="image 'phantom-000000' has no label, and the prompt names it"):
        train(settings(base, prompt="sks {label}"), bare, tmp_path / "out")
    with pytest.raises(DataError, match="names the class, but no training image has a label"):
        train(settings(base, prompt="sks spot", prior_prompt="a {label}"), bare, tmp_path / "out")
    with pytest.raises(ConfigError, match="size = 30 is no multiple of 4"):
        train(settings(base, size=30), data, tmp_path / "out")
    with pytest.raises(CheckpointError, match="no Stable Diffusion base"):
        train(settings(tmp_path / "nowhere"), data, tmp_path / "out")


class TestGenerator:
    """Generator stable-diffusion."""

    def drawn(self, base, batch, **values):
        stage = TextToImage(TextToImage.Config(checkpoint=str(base), num_inference_steps=2, **values))
        stage.setup(Context(torch.device("cpu"), "fp32", "stable-diffusion"))
        return stage(batch)

    def test_it_draws_what_the_base_draws(self, base):
        batch = lf.Batch.blank(3, seed=1).with_columns(prompts=["a", None, "b"], labels=["nevus", "melanoma", None])
        found = self.drawn(base, batch, prompt="a photo of {label}", negative_prompt="blur")
        assert list(found.prompts) == ["a", "a photo of melanoma", "b"]
        loaded = load_base(base)
        context = Context(torch.device("cpu"), "fp32", "stable-diffusion")
        latents = sample(loaded, found.prompts, batch.seeds, context=context, steps=2, negative_prompt="blur")
        torch.testing.assert_close(found.images, decode(loaded, latents, context=context))

    @pytest.mark.parametrize(("prompt", "said"), [("", "case-00000000 has no prompt"), ("a {label}", "has no class")])
    def test_a_case_needs_a_prompt(self, base, prompt, said):
        with pytest.raises(ConfigError, match=said):
            self.drawn(base, lf.Batch.blank(2, seed=1), prompt=prompt)

    def test_it_keeps_the_contract(self, base):
        expression = f"stable-diffusion(checkpoint='{base}', num_inference_steps=2, prompt='a spot')"
        assert_contract(expression, role="generator")
