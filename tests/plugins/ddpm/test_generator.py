from __future__ import annotations

import json

import pytest
import torch
from diffusers import DDIMScheduler

from lesionforge.core.batch import Batch
from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, ConfigError
from lesionforge.kernels import seeded_normal, stream_of
from lesionforge.plugins.ddpm.plugin import DDPMGenerator
from lesionforge.plugins.diffusion.schedulers import ancestral
from lesionforge.testing import contract_rules

CLASSES = ("melanoma", "nevus", "seborrheic keratosis")


def generator(folder, *, progress=None, precision="fp32", **values) -> DDPMGenerator:
    config = build_config(DDPMGenerator.Config, {"checkpoint": str(folder), **values}, where="ddpm")
    stage = DDPMGenerator(config)
    context = Context(torch.device("cpu"), precision, "ddpm", 0)
    if progress is not None:
        context = Context(torch.device("cpu"), precision, "ddpm", 0, progress)
    stage.setup(context)
    return stage


@pytest.mark.parametrize(
    ("mode", "classes", "precision", "settings"),
    [
        ("image", (), "fp32", 'scheduler="ddpm", num_inference_steps=6'),
        ("joint", CLASSES, "fp32", 'scheduler="ddim", num_inference_steps=5, eta=0.5, guidance_scale=2.0'),
        ("joint", (), "fp32", 'scheduler="sde-dpm-solver++", num_inference_steps=5'),
        ("image", CLASSES, "bf16", 'scheduler="dpm-solver++", num_inference_steps=4'),
    ],
)
def test_keeps_the_contract_of_a_generator(tiny_checkpoint, mode, classes, precision, settings):
    folder = tiny_checkpoint(mode, classes)
    expression = f"ddpm(checkpoint={json.dumps(str(folder))}, {settings})"
    for rule in contract_rules(expression, role="generator", precision=precision):
        rule.check()


def test_image_mode_is_the_plain_diffusers_loop_given_the_same_noise(tiny_checkpoint, tiny_network):
    batch = Batch.blank(3, seed=4)
    actual = generator(tiny_checkpoint(), scheduler="ddim", num_inference_steps=5).generate(batch)
    network, scheduler = tiny_network(), DDIMScheduler(40)
    scheduler.set_timesteps(5)
    x = seeded_normal(batch.seeds, (3, 16, 16), step=0, stream=stream_of("ddpm"))
    with torch.no_grad():
        for t in scheduler.timesteps:
            x = scheduler.step(network(x, t).sample, t, x).prev_sample
    torch.testing.assert_close(actual.images, (x / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)
    assert actual.masks is None and actual.labels is None
    assert not actual.images.is_inference(), "a later stage could not differentiate through it"


def test_start_noise_and_every_step_have_their_own_draws(tiny_checkpoint, tiny_network):
    batch = Batch.blank(2, seed=1)
    stage = generator(tiny_checkpoint(), scheduler="ddpm", clip_sample=False)
    actual = stage.generate(batch)
    noising, network = ancestral(stage._model.schedule, clip_sample=False), tiny_network()
    noising.set_timesteps(40)
    x = seeded_normal(batch.seeds, (3, 16, 16), step=0, stream=stream_of("ddpm"))
    with torch.no_grad():
        for k, t in enumerate(noising.timesteps.tolist()):
            z = seeded_normal(batch.seeds, (3, 16, 16), step=k + 1, stream=stream_of("ddpm"))
            x = noising.step(network(x, t).sample, t, x, variance_noise=z).prev_sample
    torch.testing.assert_close(actual.images, (x / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)


def test_joint_mode_fills_masks_by_one_half(tiny_checkpoint):
    batch = generator(tiny_checkpoint("joint"), scheduler="ddim", num_inference_steps=3).generate(Batch.blank(4))
    assert batch.images.shape == (4, 3, 16, 16) and batch.soft_masks.shape == (4, 1, 16, 16)
    assert torch.equal(batch.masks, (batch.soft_masks >= 0.5).float())
    assert batch.soft_masks.unique().numel() > 2


def test_guidance_is_the_literal_formula(tiny_checkpoint, tiny_network):
    folder = tiny_checkpoint("image", CLASSES)
    batch = Batch.blank(2, seed=8)
    values = {"scheduler": "ddim", "num_inference_steps": 1, "labels": "nevus", "clip_sample": False}
    actual = generator(folder, guidance_scale=3.0, **values).generate(batch)
    network, scheduler = tiny_network(3, 3), DDIMScheduler(40, clip_sample=False)
    scheduler.set_timesteps(1)
    x, t = seeded_normal(batch.seeds, (3, 16, 16), stream=stream_of("ddpm")), int(scheduler.timesteps[0])
    with torch.no_grad():
        guided, plain = network(x, t, torch.tensor([1, 1])).sample, network(x, t).sample
    x = scheduler.step(plain + 3.0 * (guided - plain), t, x).prev_sample
    torch.testing.assert_close(actual.images, (x / 2 + 0.5).clamp(0, 1), atol=1e-4, rtol=0)


def test_labels_are_fixed_drawn_or_taken_from_before(tiny_checkpoint):
    folder = tiny_checkpoint("image", CLASSES)
    quick = {"scheduler": "ddim", "num_inference_steps": 1}
    drawn = generator(folder, **quick).generate(Batch.blank(40))
    assert set(drawn.labels) == set(CLASSES)
    assert generator(folder, **quick).generate(Batch.blank(5, first=7)).labels == drawn.labels[7:12]
    assert set(generator(folder, labels=["nevus"], **quick).generate(Batch.blank(4)).labels) == {"nevus"}
    two = generator(folder, labels=["nevus", "melanoma"], **quick).generate(Batch.blank(20))
    assert set(two.labels) == {"nevus", "melanoma"}
    before = Batch.blank(3).with_columns(labels=["melanoma", None, "nevus"])
    after = generator(folder, **quick).generate(before)
    assert after.labels == ("melanoma", drawn.labels[1], "nevus")
    with pytest.raises(ConfigError, match=r"wart.*it knows melanoma, nevus"):
        generator(folder, **quick).generate(Batch.blank(1).with_columns(labels=["wart"]))


def test_reports_every_step(tiny_checkpoint):
    seen = []
    folder = tiny_checkpoint()
    stage = generator(folder, scheduler="ddim", num_inference_steps=4, progress=lambda *args: seen.append(args))
    stage.generate(Batch.blank(1))
    assert seen == [(1, 4, {}), (2, 4, {}), (3, 4, {}), (4, 4, {})]


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"scheduler": "euler"}, "scheduler = 'euler'"),
        ({"num_inference_steps": 41}, "41 is more than the 40 timesteps"),
        ({"num_inference_steps": 0}, "num_inference_steps"),
        ({"eta": 0.5}, "eta belongs to scheduler ddim"),
        ({"guidance_scale": 2.0}, "classes=true"),
        ({"labels": "nevus"}, "classes=true"),
        ({"steps": 3}, "unknown key 'steps'"),
    ],
)
def test_settings_that_do_not_fit_are_refused_before_any_work(tiny_checkpoint, values, words):
    with pytest.raises(ConfigError, match=words):
        generator(tiny_checkpoint(), **values)


def test_unknown_class_is_refused(tiny_checkpoint):
    with pytest.raises(ConfigError, match="wart"):
        generator(tiny_checkpoint("image", CLASSES), labels="wart")


def test_what_is_no_checkpoint_is_named(tiny_checkpoint, tmp_path):
    with pytest.raises(CheckpointError, match=r"config\.json"):
        generator(tmp_path / "nowhere")
    (tmp_path / "config.json").write_text('{"kind": "segmentation"}')
    with pytest.raises(CheckpointError, match="kind 'segmentation'"):
        generator(tmp_path)
    (tmp_path / "config.json").write_text('{"kind": ')
    with pytest.raises(CheckpointError, match="damaged"):
        generator(tmp_path)
    (tmp_path / "config.json").write_text('["ddpm"]')
    with pytest.raises(CheckpointError, match="damaged"):
        generator(tmp_path)


@pytest.mark.parametrize("victim", ["unet/diffusion_pytorch_model.safetensors", "unet/config.json", "scheduler"])
def test_damaged_checkpoint_is_named(tiny_checkpoint, victim):
    folder = tiny_checkpoint()
    file = folder / victim
    if file.is_dir():
        file = file / "scheduler_config.json"
        file.unlink()
    else:
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(CheckpointError, match="damaged") as caught:
        generator(folder)
    assert "\n" not in str(caught.value)


def test_weights_of_another_model_are_noticed(tiny_checkpoint):
    folder = tiny_checkpoint("joint")
    card = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps({**card, "mode": "image"}))
    with pytest.raises(CheckpointError, match="disagree"):
        generator(folder)
