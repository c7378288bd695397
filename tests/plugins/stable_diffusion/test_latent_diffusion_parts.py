"""Losses, pictures and captions of trainer latent-diffusion, and the settings it refuses."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st

import lesionforge as lf
from lesionforge.core.config import build_config
from lesionforge.core.context import Context
from lesionforge.core.dataset import Dataset, Record
from lesionforge.core.errors import ConfigError, DataError, PluginError, StoreError
from lesionforge.core.registry import Registry
from lesionforge.plugins.diffusion.schedule import NoiseSchedule
from lesionforge.plugins.stable_diffusion.latent_diffusion.captions import Prompts, captions_of, tokenized
from lesionforge.plugins.stable_diffusion.latent_diffusion.images import in_poses, random_crops
from lesionforge.plugins.stable_diffusion.latent_diffusion.losses import (
    autoencoder_losses,
    bounded_weights,
    denoising_losses,
)
from lesionforge.plugins.stable_diffusion.latent_diffusion.networks import SCHEDULE, fresh_autoencoder
from lesionforge.plugins.stable_diffusion.latent_diffusion.plugin import LatentDiffusionTrainer
from lesionforge.plugins.stable_diffusion.tokens import clip_tokenizer
from lesionforge.testing import disc_dataset

CPU = Context(torch.device("cpu"), "fp32", "base", 0)


def config(**values):
    return build_config(LatentDiffusionTrainer.Config, {"captioner": "", **values}, where="base")


class Sides(lf.Annotator):
    """Says on which side the lesion lies, from the mask, and where the image is darker, from the pixels."""

    name = "sides"

    def annotate(self, batch):
        columns = torch.arange(batch.masks.shape[-1])
        centre = (batch.masks * columns).sum(dim=(1, 2, 3)) / batch.masks.sum(dim=(1, 2, 3))
        half = batch.images.shape[-1] // 2
        darker = batch.images[..., :half].mean(dim=(1, 2, 3)) < batch.images[..., half:].mean(dim=(1, 2, 3))
        words = ["left" if place < half else "right" for place in centre.tolist()]
        return batch.with_columns(
            prompts=[
                f"on the {word}, dark {'left' if left else 'right'}" for word, left in zip(words, darker, strict=True)
            ]
        )


class Mute(lf.Annotator):
    """Says nothing."""

    name = "mute"

    def annotate(self, batch):
        return batch


@pytest.fixture
def registry():
    module = SimpleNamespace(register_plugins=lf.hookimpl(lambda: [Sides, Mute]))
    return Registry([SimpleNamespace(name="toys", dist=SimpleNamespace(name="toys", version="1"), load=lambda: module)])


def one_sided(side):
    mask = np.zeros((16, 16), dtype=np.uint8)
    mask[5:9, (2 if side == "left" else 10) : (6 if side == "left" else 14)] = 1
    image = np.where(mask[..., None] == 1, 40, 200).astype(np.uint8).repeat(3, axis=2)
    return Record(image_id=side, image=image, mask=mask)


def test_autoencoder_loss_is_the_literal_formula():
    rng = np.random.default_rng(0)
    images, decoded = rng.uniform(-1, 1, (2, 3, 5, 6)), rng.uniform(-1, 1, (2, 3, 5, 6))
    mean, logvar = rng.normal(size=(2, 4, 2, 2)), rng.normal(size=(2, 4, 2, 2))
    given_tensors = tuple(map(torch.from_numpy, (decoded, mean, logvar)))
    terms = autoencoder_losses(lambda _: given_tensors, torch.from_numpy(images), gradient_weight=0.7, kl_weight=0.3)
    pixel = np.abs(decoded - images).mean()
    across = np.abs((decoded[..., 1:] - decoded[..., :-1]) - (images[..., 1:] - images[..., :-1])).mean()
    down = np.abs((decoded[:, :, 1:] - decoded[:, :, :-1]) - (images[:, :, 1:] - images[:, :, :-1])).mean()
    kl = np.mean([0.5 * (m**2 + math.exp(v) - 1 - v) for m, v in zip(mean.flat, logvar.flat, strict=True)])
    assert terms["loss"].item() == pytest.approx(pixel + 0.7 * (across + down) / 2 + 0.3 * kl, rel=1e-6)
    assert terms["pixel_error"].item() == pytest.approx(pixel, rel=1e-6)


def test_denoising_loss_is_the_literal_formula_with_bounded_weights():
    schedule = NoiseSchedule(50, prediction_type="v_prediction")
    clean = torch.randn(6, 4, 3, 3, generator=torch.Generator().manual_seed(0)).double()
    seen = {}

    def network(noisy, timesteps, tokens):
        seen.update(noisy=noisy, timesteps=timesteps)
        return 0.1 * noisy + tokens[:, :1, None, None]

    tokens = torch.arange(6).reshape(6, 1).expand(6, 77) / 10
    with torch.random.fork_rng():
        torch.manual_seed(3)
        terms = denoising_losses(network, schedule, clean, tokens, gamma=5.0)
        torch.manual_seed(3)
        timesteps, noise = torch.randint(50, (6,)), torch.randn(clean.shape).double()
    abar = np.cumprod(1 - np.linspace(1e-4, 0.02, 50))[timesteps.numpy()]
    signal, spread = (np.sqrt(part)[:, None, None, None] for part in (abar, 1 - abar))
    noisy = signal * clean.numpy() + spread * noise.numpy()
    velocity = signal * noise.numpy() - spread * clean.numpy()
    predicted = 0.1 * noisy + tokens[:, :1, None, None].numpy()
    errors = ((predicted - velocity) ** 2).mean(axis=(1, 2, 3))
    snr = abar / (1 - abar)
    np.testing.assert_allclose(seen["noisy"].numpy(), noisy, rtol=1e-5, atol=1e-6)
    assert terms["loss"].item() == pytest.approx((np.minimum(snr + 1, 5) / (snr + 1) * errors).mean(), rel=1e-5)
    assert terms["error"].item() == pytest.approx(errors.mean(), rel=1e-5)


def test_weights_agree_with_diffusers_own_snr():
    from diffusers.training_utils import compute_snr

    timesteps = torch.arange(0, 1000, 37)
    snr = compute_snr(SCHEDULE.ddim(), timesteps)
    expected = (snr + 1).clamp(max=5.0) / (snr + 1)
    torch.testing.assert_close(bounded_weights(SCHEDULE, timesteps, 5.0), expected, rtol=1e-4, atol=1e-6)


def test_little_of_the_signal_is_left_at_the_end():
    assert SCHEDULE.ddim().alphas_cumprod[-1].item() < 5e-5


def test_four_poses_are_the_four_mirrorings():
    image = torch.arange(6.0).reshape(1, 1, 2, 3)
    poses = in_poses(image.expand(4, 1, 2, 3), torch.arange(4))
    array = image[0, 0].numpy()
    for pose, expected in zip(
        poses[:, 0].numpy(), (array, array[:, ::-1], array[::-1], array[::-1, ::-1]), strict=True
    ):
        np.testing.assert_array_equal(pose, expected)


@settings(deadline=None)
@given(st.integers(0, 2**31), st.integers(1, 8))
def test_crops_are_parts_of_their_images(seed, edge):
    images = torch.arange(2 * 3 * 8 * 9.0).reshape(2, 3, 8, 9)
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        crops = random_crops(images, edge)
    for image, crop in zip(images, crops, strict=True):
        windows = image.unfold(1, edge, 1).unfold(2, edge, 1)
        assert (windows == crop[:, None, None]).all(dim=(0, 3, 4)).sum() == 1


def test_crops_reach_every_corner():
    images = torch.arange(4.0).reshape(1, 1, 2, 2).expand(100, 1, 2, 2)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        assert set(random_crops(images, 1).flatten().tolist()) == {0, 1, 2, 3}


def test_a_fresh_autoencoder_averages_repeats_and_passes_on():
    vae = fresh_autoencoder(config(autoencoder_channels=[8, 16]), 0)
    x = torch.randn(1, 8, 6, 6, generator=torch.Generator().manual_seed(0))
    down, block = vae.encoder.down_blocks[0].downsamplers[0], vae.encoder.down_blocks[0].resnets[0]
    torch.testing.assert_close(down(x), F.avg_pool2d(x, 2) + down.conv.bias[:, None, None])
    torch.testing.assert_close(block(x, None), x)
    up, wide = vae.decoder.up_blocks[0].upsamplers[0], x.repeat(1, 2, 1, 1)
    torch.testing.assert_close(up(wide), F.interpolate(wide, scale_factor=2) + up.conv.bias[:, None, None])


def test_captions_describe_every_pose_and_are_kept(tmp_path, registry):
    data = Dataset("sides", (one_sided("left"), one_sided("right")))
    settings, context = config(captioner="sides"), replace(CPU, registry=registry)
    captions = captions_of(data, settings, 4, context, tmp_path)
    left, right = (f"on the {side}, dark {side}" for side in ("left", "right"))
    assert captions == [[left, right], [right, left], [left, right], [right, left]]
    assert captions_of(data, config(captioner="mute"), 4, context, tmp_path) == captions, "read from captions.jsonl"


def test_captions_of_other_images_are_refused(tmp_path, registry):
    context = replace(CPU, registry=registry)
    captions_of(Dataset("sides", (one_sided("left"),)), config(captioner="sides"), 1, context, tmp_path)
    with pytest.raises(StoreError, match=r"captions\.jsonl does not fit the training images.*delete it"):
        captions_of(Dataset("sides", (one_sided("right"),)), config(captioner="sides"), 1, context, tmp_path)


def test_an_image_without_caption_is_named(tmp_path, registry):
    data = Dataset("sides", (one_sided("left"),))
    with pytest.raises(DataError, match="dataset sides has no caption for image 'left'"):
        captions_of(data, config(), 1, CPU, tmp_path)
    with pytest.raises(DataError, match="captioner 'mute' gave no caption for image 'left'"):
        captions_of(data, config(captioner="mute"), 1, replace(CPU, registry=registry), tmp_path)


def test_prompts_become_empty_or_short_with_their_shares():
    settings = config(empty_share=0.2, short_share=0.3)
    tokens = torch.full((1, 4, 77), 7)
    prompts = Prompts(tokens, torch.full((77,), 5), torch.full((77,), 3), settings)
    with torch.random.fork_rng():
        torch.manual_seed(0)
        taken = prompts.take(torch.zeros(4000, dtype=torch.long), [0, 1, 2, 3] * 1000)
    assert (taken == taken[:, :1]).all()
    shares = {number: float((taken[:, 0] == number).float().mean()) for number in (3, 5, 7)}
    assert shares == pytest.approx({3: 0.2, 5: 0.3, 7: 0.5}, abs=0.03)


def test_a_caption_that_is_too_long_is_named():
    with pytest.raises(DataError, match=r"caption of 82 tokens where the text encoder takes 77: 'skin skin"):
        tokenized([["skin " * 80]], clip_tokenizer(), config())


@pytest.mark.parametrize(
    ("values", "words"),
    [
        ({"size": 100}, "size 100 must be a multiple of 16"),
        ({"autoencoder_crop": 66}, "autoencoder_crop 66 must be a multiple of 4 and at most 128"),
        ({"autoencoder_crop": 256}, "autoencoder_crop 256"),
        ({"autoencoder_channels": [12, 16]}, "autoencoder_channels must be multiples of 8"),
        ({"channels": [64, 72]}, "channels must be multiples of 16"),
        ({"channels": [64, 96]}, r"channels \(64, 96\) must be multiples of head_channels 64"),
        ({"empty_share": 0.6, "short_share": 0.6}, "must not exceed 1 together"),
        ({"captioner": "derm-prompt("}, "captioner = 'derm-prompt"),
        ({"text_width": 40}, "text_width = 40"),
    ],
)
def test_settings_without_sense_are_refused(values, words):
    with pytest.raises(ConfigError, match=f"base: .*{words}") as refused:
        config(**values)
    assert "\n" not in str(refused.value)


def test_a_captioner_must_be_an_annotator_that_is_there():
    for captioner, words in (("nobody", "'nobody'"), ("phantom", "phantom is a generator, not an annotator")):
        with pytest.raises((ConfigError, PluginError), match=words):
            LatentDiffusionTrainer(config(captioner=captioner)).setup(CPU)


def test_a_captioner_cannot_refer_to_a_job_of_the_recipe():
    captioner = 'segmenter(checkpoint="train:annotator") | derm-prompt'
    with pytest.raises(ConfigError, match=r"segmenter cannot take checkpoint = 'train:annotator'.*give the folder"):
        LatentDiffusionTrainer(config(captioner=captioner)).setup(CPU)


def test_captions_may_hold_any_character(tmp_path):
    caption = "brown,\u2028\x85symmetric\r\non skin"
    data = Dataset("sides", (replace(one_sided("left"), caption=caption),))
    assert captions_of(data, config(), 1, CPU, tmp_path) == captions_of(data, config(), 1, CPU, tmp_path) == [[caption]]


def test_discs_have_captions_of_their_own(tmp_path):
    data = disc_dataset(3)
    assert captions_of(data, config(), 2, CPU, tmp_path)[1][2] == "a dark disc, number 2"
