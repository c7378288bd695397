"""Trainer latent-diffusion from images and captions to a folder that diffusers and lesionforge load."""

from __future__ import annotations

import csv
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from PIL import Image
from safetensors.torch import load_file

from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.plugins.stable_diffusion.base import load_base
from lesionforge.plugins.stable_diffusion.latent_diffusion.plugin import LatentDiffusionTrainer
from lesionforge.testing import contract_rules, disc_dataset

TINY = {
    "size": 16,
    "captioner": "",
    "autoencoder_channels": [8, 16],
    "autoencoder_steps": 3,
    "autoencoder_batch_size": 4,
    "autoencoder_crop": 8,
    "text_width": 32,
    "text_layers": 1,
    "channels": [16, 32],
    "head_channels": 16,
    "steps": 3,
    "batch_size": 4,
    "warmup_steps": 0,
    "snapshot_every": 0,
}


@pytest.fixture(scope="module", autouse=True)
def computed_on_one_thread(one_thread_for_the_module):
    pass


def trained(output, data=None, **values):
    output.mkdir(exist_ok=True)
    trainer = LatentDiffusionTrainer(build_config(LatentDiffusionTrainer.Config, {**TINY, **values}, where="base"))
    trainer.setup(Context(torch.device("cpu"), "fp32", "base", 0))
    data = disc_dataset(12) if data is None else data
    trainer.train(data.split("train"), data.split("val"), output)
    return trainer


def curve(file):
    with file.open() as table:
        return list(csv.DictReader(table))


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    output = tmp_path_factory.mktemp("base")
    trainer = trained(output, snapshot_every=2, snapshot_count=3, licence="CC-0")
    return output, trainer.evaluate(disc_dataset(12).split("val"), output)


def test_diffusers_opens_the_folder_and_draws(finished):
    from diffusers import StableDiffusionPipeline

    pipeline = StableDiffusionPipeline.from_pretrained(
        finished[0], local_files_only=True, torch_dtype=torch.float32, use_safetensors=True
    )
    pipeline.set_progress_bar_config(disable=True)
    drawn = pipeline("An image of lesion on skin.", num_inference_steps=2, guidance_scale=2.0)
    assert drawn.images[0].size == (16, 16)


def test_our_loader_opens_the_folder(finished):
    base = load_base(finished[0])
    assert base.size == 16 and base.downsampling == 2
    assert base.schedule.prediction_type == "v_prediction" and base.schedule.beta_end == 0.02
    assert len(base.tokenizer) == 49408 == base.text_encoder.config.vocab_size


def test_weights_are_bf16_and_latents_have_deviation_one(finished):
    output, _ = finished
    for part in ("unet", "vae", "text_encoder"):
        (file,) = (output / part).glob("*.safetensors")
        assert {tensor.dtype for tensor in load_file(file).values()} == {torch.bfloat16}
    base, data = load_base(output), disc_dataset(12).split("train").resized(16)
    images = data.fetch(range(len(data))).images * 2 - 1
    with torch.no_grad():
        latents = base.vae.encode(images).latent_dist.mean * base.vae.config["scaling_factor"]
    assert latents.std().item() == pytest.approx(1, rel=0.01)
    kept = load_file(output / "state" / "latents.safetensors")["latents"]
    assert kept.shape == (4, len(data), 4, 8, 8)
    torch.testing.assert_close(kept[0].float(), latents, atol=5e-3, rtol=5e-3)


def test_curves_pictures_captions_and_card_are_left(finished):
    output, metrics = finished
    assert list(curve(output / "curves.csv")[0]) == ["step", "loss", "error", "learning_rate"]
    assert "gradient_error" in curve(output / "autoencoder" / "curves.csv")[0]
    for picture in ("curves.png", "samples/step-000003.png", "autoencoder/step-000003.png"):
        assert Image.open(output / picture).width > 100
    card = (output / "README.md").read_text()
    for words in ("CC-0", "procedural phantoms", "research only", "8 images of `discs`", "Trained on a CPU in fp32"):
        assert words in card
    assert f"{metrics['reconstruction_psnr_db']:.4g}" in card and "Measured on 4 test images" in card
    links = [part.split(")")[0] for part in card.split("](")[1:]]
    assert len(links) == 3 and all((output / link).is_file() for link in links)
    assert len((output / "captions.jsonl").read_text().splitlines()) == 4 * 8


def test_held_out_images_are_measured_one_by_one(finished):
    output, metrics = finished
    rows = curve(output / "per_image.csv")
    assert [row["image_id"] for row in rows] == list(disc_dataset(12).split("val").ids)
    for name, value in metrics.items():
        assert sum(float(row[name]) for row in rows) / len(rows) == pytest.approx(value)
    assert 0.5 < metrics["prediction_error"] < 2


def test_killed_and_resumed_equals_uninterrupted():
    settings = ", ".join(f"{key}={value!r}".replace("'", '"') for key, value in TINY.items() if key != "snapshot_every")
    expression = f"latent-diffusion({settings}, checkpoint_every=2, snapshot_every=0, ema_decay=0.9)"
    for rule in contract_rules(expression, role="trainer", data=disc_dataset(12)):
        rule.check()


@pytest.mark.parametrize("stop_at", [2, 5])
def test_either_training_can_be_killed_and_what_is_finished_is_not_done_again(tmp_path, stop_at):
    class Kill(BaseException):
        pass

    steps = []

    def progress(done, total, metrics):
        assert total == 6
        steps.append(done)
        if len(steps) == stop_at:
            raise Kill

    data = disc_dataset(12)
    for _ in range(2):
        trainer = LatentDiffusionTrainer(
            build_config(LatentDiffusionTrainer.Config, {**TINY, "checkpoint_every": 1}, where="base")
        )
        trainer.setup(Context(torch.device("cpu"), "fp32", "base", 0, progress))
        try:
            trainer.train(data.split("train"), None, tmp_path)
        except Kill:
            continue
    assert steps == [*range(1, stop_at + 1), *range(stop_at, 7)], "the step in flight is done again, and no other"


def test_captions_shape_the_training(tmp_path):
    data = disc_dataset(12)
    captions = [record.caption for record in data.records]
    permuted = replace(
        data,
        records=tuple(
            replace(record, caption=caption)
            for record, caption in zip(data.records, captions[1:] + captions[:1], strict=True)
        ),
    )
    unet = Path("unet", "diffusion_pytorch_model.safetensors")
    for name, cases in (("one", data), ("same", data), ("other", permuted)):
        trained(tmp_path / name, cases, empty_share=0.0, short_share=0.0)
    one, same, other = ((tmp_path / name / unet).read_bytes() for name in ("one", "same", "other"))
    assert one == same != other
    autoencoders = [(tmp_path / name / "vae" / unet.name).read_bytes() for name in ("one", "other")]
    assert autoencoders[0] == autoencoders[1]


def test_the_autoencoder_learns_discs(tmp_path):
    trained(tmp_path, autoencoder_steps=60, autoencoder_learning_rate=4e-3, autoencoder_crop=16, steps=1)
    errors = [float(row["pixel_error"]) for row in curve(tmp_path / "autoencoder" / "curves.csv")]
    assert sum(errors[-10:]) / 10 < 0.5 * sum(errors[:5]) / 5
