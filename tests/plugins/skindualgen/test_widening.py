"""The widened autoencoder: the old one on colours, and what becomes of the mask."""

from __future__ import annotations

import pytest
import torch
from diffusers.models.autoencoders.autoencoder_kl import AutoencoderKL

from lesionforge.core.errors import CheckpointError
from lesionforge.plugins.skindualgen.network import pair_network
from lesionforge.plugins.skindualgen.widening import load_widened, widen, widened_state
from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base
from lesionforge.plugins.stable_diffusion.prompts import encode_prompts
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion


@pytest.fixture
def pixels() -> torch.Tensor:
    rng = torch.Generator().manual_seed(0)
    return torch.cat((2 * torch.rand(2, 3, 32, 32, generator=rng) - 1, torch.ones(2, 1, 32, 32)), dim=1)


def network_inputs(base: StableDiffusionBase) -> tuple[torch.Tensor, ...]:
    rng = torch.Generator().manual_seed(0)
    images, masks = torch.rand(2, 3, 32, 32, generator=rng), (torch.rand(2, 1, 32, 32, generator=rng) < 0.5).float()
    draws, noise = torch.randn(2, 2, 4, 8, 8, generator=rng)
    return images, masks, draws, noise, torch.tensor([30, 700]), encode_prompts(base, ["a", "b"]).states.detach()


@torch.no_grad()
def test_before_training_it_is_the_old_one_on_colours(tiny_base, pixels):
    old, new = load_base(tiny_base).vae, load_base(tiny_base).vae
    widen(new)
    latents, theirs = new.encode(pixels).latent_dist, old.encode(pixels[:, :3]).latent_dist
    assert torch.equal(latents.mean, theirs.mean) and torch.equal(latents.std, theirs.std)
    decoded, colours = new.decode(latents.mean).sample, old.decode(theirs.mean).sample
    assert torch.equal(decoded[:, :3], colours)
    torch.testing.assert_close(decoded[:, 3:], colours.mean(1, keepdim=True))


@torch.no_grad()
def test_its_state_is_that_of_a_plain_autoencoder_of_four_channels(tiny_base, pixels):
    vae = load_base(tiny_base).vae
    first, last = widen(vae)
    first.mask.weight.normal_(generator=torch.Generator().manual_seed(1))
    state = widened_state(first, last)
    plain = AutoencoderKL.from_config({**load_base(tiny_base).vae.config, "in_channels": 4, "out_channels": 4})
    plain.load_state_dict({**load_base(tiny_base).vae.state_dict(), **state})
    plain.eval()
    torch.testing.assert_close(plain(pixels).sample, vae(pixels).sample, rtol=1e-4, atol=1e-5)
    again = load_base(tiny_base).vae
    load_widened(*widen(again), state)
    assert torch.equal(again(pixels).sample, vae(pixels).sample)


def test_a_base_whose_autoencoder_is_wide_already_is_refused(tiny_base, settings):
    base = load_base(tiny_base)
    widen(base.vae)
    with pytest.raises(CheckpointError, match="its vae takes 4 and gives 4 channels, where 3 and 3 can be widened"):
        pair_network(base, settings(), 0)


@pytest.mark.parametrize("prediction_type", ["epsilon", "v_prediction", "sample"])
def test_a_step_is_the_papers(settings, tmp_path, prediction_type):
    """Encode, noise, predict, x0 by hand from what the base predicts, decode; LoRA starts as nothing."""
    folder = tiny_stable_diffusion(tmp_path, latent_size=8, downsampling=4, prediction_type=prediction_type)
    base, plain = load_base(folder), load_base(folder)
    network = pair_network(base, settings(), 0)
    images, masks, draws, noise, timesteps, states = network_inputs(base)
    with torch.no_grad():
        prediction = network(images, masks, draws, noise, timesteps, states)
        scale = plain.vae.config["scaling_factor"]
        posterior = plain.vae.encode(2 * images - 1).latent_dist
        clean = (posterior.mean + posterior.std * draws) * scale
        abar = plain.schedule.ddim().alphas_cumprod[timesteps].view(2, 1, 1, 1)
        noisy = abar.sqrt() * clean + (1 - abar).sqrt() * noise
        output = plain.unet(noisy, timesteps, states).sample
        denoised = {
            "epsilon": (noisy - (1 - abar).sqrt() * output) / abar.sqrt(),
            "v_prediction": abar.sqrt() * noisy - (1 - abar).sqrt() * output,
            "sample": output,
        }[prediction_type]
        target = {"epsilon": noise, "v_prediction": abar.sqrt() * noise - (1 - abar).sqrt() * clean, "sample": clean}
        colours = plain.vae.decode(denoised / scale).sample
    close = {"rtol": 1e-4, "atol": 1e-4}
    torch.testing.assert_close(prediction.output, output, **close)
    torch.testing.assert_close(prediction.target, target[prediction_type], **close)
    torch.testing.assert_close(prediction.channels[:, :3], colours, **close)
    torch.testing.assert_close(prediction.logits, colours.mean(1, keepdim=True), **close)


MASK_FILTERS = {"first.mask.weight", "last.mask.weight", "last.mask.bias"}
COLOUR_FILTERS = {"first.rgb.weight", "first.rgb.bias", "last.rgb.weight", "last.rgb.bias"}


@pytest.mark.parametrize(
    ("changed", "expected"),
    [({}, MASK_FILTERS), ({"strict_frozen": True}, set()), ({"keep_rgb": False}, MASK_FILTERS | COLOUR_FILTERS)],
)
def test_what_learns(settings, tiny_base, changed, expected):
    base = load_base(tiny_base)
    network = pair_network(base, settings(**changed), 0)
    learning = {name for name, weight in network.named_parameters() if weight.requires_grad}
    assert {name for name in learning if not name.startswith("adapter.")} == expected
    adapted = [name for name, weight in base.unet.named_parameters() if weight.requires_grad]
    assert len(adapted) == len(learning) - len(expected)
    assert adapted and all("lora_" in name and "attn" in name for name in adapted)
    assert not any(weight.requires_grad for weight in base.text_encoder.parameters())


def test_the_noise_loss_does_not_reach_the_encoder_and_the_masks_do(settings, tiny_base):
    base = load_base(tiny_base)
    network = pair_network(base, settings(), 0)
    inputs = network_inputs(base)
    prediction = network(*inputs)
    (prediction.output - prediction.target).square().mean().backward(retain_graph=True)
    assert network.first.mask.weight.grad is None and network.last.mask.weight.grad is None
    prediction.logits.square().mean().backward()
    for layer in (network.first, network.last):
        assert layer.mask.weight.grad is not None and float(layer.mask.weight.grad.abs().sum()) > 0


def test_checkpointing_and_slicing_change_no_gradient(settings, tiny_base):
    gradients = []
    for changed in ({}, {"gradient_checkpointing": True, "vae_slicing": True}):
        base = load_base(tiny_base)
        network = pair_network(base, settings(**changed), 0)
        prediction = network(*network_inputs(base))
        ((prediction.output - prediction.target).square().mean() + prediction.logits.square().mean()).backward()
        gradients.append({name: weight.grad for name, weight in network.named_parameters() if weight.grad is not None})
    assert gradients[0].keys() == gradients[1].keys()
    for name in gradients[0]:
        torch.testing.assert_close(gradients[0][name], gradients[1][name], rtol=1e-3, atol=1e-5)
