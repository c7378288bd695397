"""Trainer didgen: what it learns, what it leaves, and that being killed changes nothing."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
import torch
from diffusers.pipelines.stable_diffusion.pipeline_stable_diffusion import StableDiffusionPipeline
from PIL import Image
from torch.nn import functional

from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset
from lesionforge.core.durable import tree_hash
from lesionforge.core.errors import CheckpointError, ConfigError, DataError
from lesionforge.kernels import extract_masks
from lesionforge.plugins.didgen import training
from lesionforge.plugins.didgen.examples import encoded_examples, with_prefix
from lesionforge.plugins.didgen.losses import token_maps
from lesionforge.plugins.didgen.maps import iou
from lesionforge.plugins.didgen.placeholders import PREFIX, add_placeholders, check_placeholders, placeholder_places
from lesionforge.plugins.didgen.plugin import DiDGenTrainer, DiDGenTrainerConfig
from lesionforge.plugins.stable_diffusion import adaptation, kept
from lesionforge.plugins.stable_diffusion.base import load_base
from lesionforge.plugins.stable_diffusion.prompts import encode_prompts
from lesionforge.plugins.stable_diffusion.sampling import encode

CONTEXT = Context(torch.device("cpu"), "fp32", "tuning", 3)


def settings(base: Path, **changed) -> DiDGenTrainerConfig:
    values = {"size": 32, "captioner": "", "cross_factor": 1, "steps": 4, "batch_size": 4, "warmup_steps": 0}
    values |= {"snapshot_every": 0, "checkpoint_every": 2, "learning_rate": 1e-3}
    return DiDGenTrainerConfig.model_validate({"base": str(base), **values, **changed})


def train(config: DiDGenTrainerConfig, data: Dataset, output: Path) -> Path:
    output.mkdir(exist_ok=True)
    trainer = DiDGenTrainer(config)
    trainer.setup(CONTEXT)
    trainer.train(data, None, output)
    return output


def tuning_of(folder: Path, data: Dataset, **changed) -> training.FineTuning:
    config, base = settings(folder, **changed), load_base(folder)
    add_placeholders(base)
    with TemporaryDirectory() as output:
        examples = encoded_examples(base, data, config, CONTEXT, Path(output))
    return training.FineTuning(base, examples, config, torch.device("cpu"))


def overlap_of_lesion_maps(folder: Path, data: Dataset) -> float:
    """Mean IoU of the lesion token's thresholded map with the true mask, at a low noise level."""
    tuning = tuning_of(folder, data)
    rows, examples = list(range(len(data))), tuning.examples
    noise = torch.randn(examples.latents.means.shape, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        prompts = list(examples.prompts)
        timesteps = torch.full((len(rows),), 100)
        _, maps, tokens = tuning.predict(tuning.base.unet, examples.latents.means, noise, timesteps, prompts)
        lesion = token_maps(maps, tokens)[..., 0].unflatten(1, (8, 8))
    return float(iou(extract_masks(lesion, 32, closing=0), examples.masks(rows, torch.device("cpu"))).mean())


def test_the_region_loss_teaches_the_lesion_token_where_the_lesion_is(tiny_base, phantoms, tmp_path):
    learnt, held_out = phantoms.split("train"), phantoms.split("test")
    changed = {"steps": 60, "learning_rate": 3e-3, "checkpoint_every": 1000}
    without = train(settings(tiny_base, **changed, region_weight=0.0), learnt, tmp_path / "without")
    trained = train(settings(tiny_base, **changed, region_weight=1.0), learnt, tmp_path / "with")
    assert overlap_of_lesion_maps(trained, held_out) > overlap_of_lesion_maps(without, held_out) + 0.2


def test_losses_are_the_equations(tiny_base, phantoms):
    tuning = tuning_of(tiny_base, phantoms, region_weight=0.3, prefix_share=0.0)
    rows = [0, 5, 9]
    torch.manual_seed(1)
    terms = tuning.losses(tuning.base.unet, rows)
    torch.manual_seed(1)
    torch.rand(3)
    examples, schedule = tuning.examples, tuning.base.schedule
    clean = examples.latents.means[rows] + examples.latents.deviations[rows] * torch.randn(3, 4, 8, 8)
    noise, timesteps = torch.randn(3, 4, 8, 8), torch.randint(1000, (3,))
    abar = schedule.ddim().alphas_cumprod[timesteps].view(3, 1, 1, 1)
    prompts = [f"{PREFIX} A brown lesion."] * 3
    noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
    predicted, maps, _ = tuning.predict(tuning.base.unet, clean, noise, timesteps, prompts)
    torch.testing.assert_close(schedule.noised(clean, noise, timesteps), noisy)
    torch.testing.assert_close(terms["reconstruction"], functional.mse_loss(predicted, noise))
    masks = functional.adaptive_avg_pool2d(examples.masks(rows, torch.device("cpu")), 8).flatten(1)
    attended = torch.softmax(maps.query @ maps.key.mT / maps.query.shape[-1] ** 0.5, dim=-1).mean(1)[..., [4, 6]]
    squares = (attended - torch.stack((masks, 1 - masks), dim=-1)).square()
    torch.testing.assert_close(terms["region"], squares.mean(1).sum(-1).mean() / 2)
    torch.testing.assert_close(terms["loss"], terms["reconstruction"] + 0.3 * terms["region"])


def test_images_without_a_mask_teach_the_noise_alone(tiny_base, phantoms):
    bare = Dataset("bare", tuple(phantoms.records[row] for row in range(4)))
    records = tuple(
        record if row % 2 else type(record)(record.image_id, record.image, None, caption=record.caption)
        for row, record in enumerate(bare.records)
    )
    tuning = tuning_of(tiny_base, Dataset("half", records))
    torch.manual_seed(0)
    mixed = tuning.losses(tuning.base.unet, [0, 2])
    assert float(mixed["region"].detach()) == 0 and torch.equal(mixed["loss"], mixed["reconstruction"])
    assert float(tuning.losses(tuning.base.unet, [0, 1])["region"].detach()) > 0


@pytest.mark.parametrize(
    "changed",
    [{}, {"lora_rank": 2}, {"ema_decay": 0.9, "gradient_checkpointing": True}, {"captioner": "derm-prompt"}],
)
def test_killed_and_resumed_is_uninterrupted(tiny_base, phantoms, tmp_path, monkeypatch, changed):
    config = settings(tiny_base, **changed)
    whole = train(config, phantoms.take(range(8)), tmp_path / "whole")

    original = training.FineTuning.losses
    calls = iter(range(3))

    def dying(self, network, rows):
        if next(calls, None) is None:
            raise KeyboardInterrupt
        return original(self, network, rows)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(training.FineTuning, "losses", dying)
        train(config, phantoms.take(range(8)), tmp_path / "killed")
    with monkeypatch.context() as patch:  # neither captioned nor encoded again
        patch.setattr(kept, "Captioner", None)
        patch.setattr(kept, "posterior_latents", None)
        resumed = train(config, phantoms.take(range(8)), tmp_path / "killed")
    for part in ("unet", "text_encoder", "tokenizer", "vae", "scheduler", "curves.csv", "captions.jsonl"):
        assert tree_hash(whole / part) == tree_hash(resumed / part), part


def test_what_it_leaves_is_a_diffusers_pipeline_with_both_tokens(tiny_base, phantoms, tmp_path):
    folder = train(settings(tiny_base, lora_rank=2), phantoms.take(range(8)), tmp_path / "out")
    pipeline = StableDiffusionPipeline.from_pretrained(folder, local_files_only=True)
    assert pipeline.tokenizer.tokenize(PREFIX)[3:6:2] == ["<lesion>", "<skin>"]
    before, after = load_base(tiny_base).unet.state_dict(), load_base(folder).unet.state_dict()
    changed = {name for name in before if not torch.equal(before[name], after[name])}
    assert changed and all("attn" in name and "to_" in name for name in changed)
    with (folder / "curves.csv").open() as file:
        assert {"step", "loss", "reconstruction", "region"} <= set(next(csv.DictReader(file)))


def test_placeholder_embeddings_begin_as_their_words_and_stay(tiny_base, phantoms, tmp_path):
    folder = train(settings(tiny_base), phantoms.take(range(8)), tmp_path / "out")
    base = load_base(folder)
    table = base.text_encoder.get_input_embeddings().weight
    for token, word in (("<lesion>", "lesion"), ("<skin>", "skin")):
        parts = base.tokenizer(word, add_special_tokens=False)["input_ids"]
        torch.testing.assert_close(table[base.tokenizer.convert_tokens_to_ids(token)], table[parts].mean(0))
    original = load_base(tiny_base).text_encoder.get_input_embeddings().weight
    assert torch.equal(table[: len(original)], original)


def test_maps_are_pictured_beside_masks(tiny_base, phantoms, tmp_path):
    config = settings(tiny_base, snapshot_every=2, snapshot_count=3)
    folder = train(config, phantoms.take(range(8)), tmp_path / "out")
    assert sorted(path.name for path in (folder / "maps").iterdir()) == ["step-000002.png", "step-000004.png"]
    sheet = np.asarray(Image.open(folder / "maps" / "step-000004.png").convert("RGB"), dtype=float)
    quarters = np.array_split(sheet, 4)
    assert all(part.std() > 20 for part in quarters)  # none of the four rows is blank


def test_prefix_and_places():
    assert with_prefix("A lesion.") == f"{PREFIX} A lesion."
    assert with_prefix(f"{PREFIX} A lesion.") == f"{PREFIX} A lesion."


def places(base, prompts):
    return placeholder_places(base, encode_prompts(base, prompts), prompts, where="here")


def test_places_are_those_of_the_placeholders(tiny_model):
    base = load_base(tiny_model)
    prompts = [PREFIX, f"Dermoscopy. {PREFIX} {PREFIX}"]
    ids = [base.tokenizer(prompt)["input_ids"] for prompt in prompts]
    words = [base.tokenizer.convert_ids_to_tokens(row) for row in ids]
    assert places(base, prompts).tolist() == [[row.index("<lesion>"), row.index("<skin>")] for row in words]


@pytest.mark.filterwarnings("ignore:1 of 2 prompts exceed")
def test_a_prompt_without_placeholders_is_an_error_that_says_what_to_do(tiny_model):
    base = load_base(tiny_model)
    long = "very " * 80 + PREFIX
    for prompt, absent in (("A lesion on <skin>.", "<lesion>"), ("A <lesion>.", "<skin>"), (long, "<lesion>")):
        with pytest.raises(DataError, match=f"here: prompt .* lacks {absent} .* begin prompts with"):
            places(base, [PREFIX, prompt])


def test_a_base_that_was_not_fine_tuned_is_an_error(tiny_base):
    with pytest.raises(CheckpointError, match="does not know the token <lesion>; train it with trainer didgen"):
        check_placeholders(load_base(tiny_base), where="here")


def test_a_caption_that_is_too_long_is_an_error_before_training(tiny_base, phantoms, tmp_path):
    long = replace(phantoms.records[1], caption="brown " * 80)
    with pytest.raises(DataError, match=r"image 'phantom-000001' has a caption of \d+ tokens where .* takes 77"):
        train(settings(tiny_base), Dataset("long", (phantoms.records[0], long)), tmp_path / "out")
    train(settings(tiny_base, steps=1), phantoms.take(range(2)), tmp_path / "out")  # a corrected one is not in its way


def test_examples_are_what_the_vae_says_scaled(tiny_base, phantoms, tmp_path):
    base = load_base(tiny_base)
    examples = encoded_examples(base, phantoms.take(range(3)), settings(tiny_base), CONTEXT, tmp_path)
    images = phantoms.take(range(3)).fetch(range(3)).images
    torch.testing.assert_close(examples.latents.means, encode(base, images).detach())
    noise = torch.ones_like(examples.latents.means)
    drawn = examples.latents.means + examples.latents.deviations
    torch.testing.assert_close(drawn, encode(base, images, noise=noise).detach())


def test_a_share_of_the_prompts_is_the_prefix_alone(tiny_base, phantoms, monkeypatch):
    tuning = tuning_of(tiny_base, phantoms.take(range(40)), prefix_share=0.3)
    seen: list[str] = []

    def predict(network, clean, noise, timesteps, prompts):
        seen.extend(prompts)
        raise KeyboardInterrupt

    monkeypatch.setattr(tuning, "predict", predict)
    torch.manual_seed(0)
    for _ in range(20):
        with pytest.raises(KeyboardInterrupt):
            tuning.losses(tuning.base.unet, list(range(40)))
    assert abs(seen.count(PREFIX) / len(seen) - 0.3) < 0.06  # 3.7 standard deviations of 800 draws


def test_the_optimiser_gets_its_settings(tiny_base, phantoms, tmp_path, monkeypatch):
    given = {}

    class Watched(adaptation.TrainingLoop):
        def __init__(self, **settings):
            given.update(settings)
            super().__init__(**settings)

    monkeypatch.setattr(adaptation, "TrainingLoop", Watched)
    config = settings(tiny_base, steps=1, warmup_steps=10, clip_norm=0.5, weight_decay=0.03, learning_rate=2e-4)
    train(config, phantoms.take(range(4)), tmp_path / "out")
    (group,) = given["optimizer"].param_groups
    assert (group["weight_decay"], given["clip_norm"]) == (0.03, 0.5)
    assert [given["rate"](step) for step in (0, 4, 9, 50)] == [0.1, 0.5, 1, 1]


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_it_trains_with_measured_captions_by_the_released_codes_loss(tiny_base, phantoms, tmp_path, precision):
    trainer = DiDGenTrainer(settings(tiny_base, captioner="derm-prompt", compat="reference", steps=2, size=64))
    trainer.setup(replace(CONTEXT, precision=precision))
    trainer.train(phantoms.take(range(4)), None, tmp_path)
    assert load_base(tiny_base).size == 32 and load_base(tmp_path).size == 64


def test_a_resolution_that_the_base_has_not_is_an_error(tiny_base, phantoms, tmp_path):
    with pytest.raises(ConfigError, match="no cross-attention at 3"):
        train(settings(tiny_base, cross_factor=3), phantoms.take(range(4)), tmp_path / "out")


def test_a_missing_caption_is_an_error(tiny_base, phantoms, tmp_path):
    bare = Dataset("bare", tuple(type(r)(r.image_id, r.image, r.mask) for r in phantoms.records[:3]))
    with pytest.raises(DataError, match=r"dataset bare has no caption for image 'phantom-000000'"):
        train(settings(tiny_base), bare, tmp_path / "out")


def test_a_captioner_that_is_no_annotator_is_refused_before_any_work(tiny_base):
    trainer = DiDGenTrainer(settings(tiny_base, captioner="mask-quality"))
    with pytest.raises(ConfigError, match="mask-quality is a filter, not an annotator"):
        trainer.setup(CONTEXT)


def test_a_size_between_latents_is_an_error(tiny_base, phantoms, tmp_path):
    with pytest.raises(ConfigError, match="size = 34 is no multiple of 4"):
        train(settings(tiny_base, size=34), phantoms.take(range(4)), tmp_path / "out")
