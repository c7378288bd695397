from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import pytest
import torch
from diffusers import DDIMScheduler, DPMSolverMultistepScheduler, PNDMScheduler, StableDiffusionPipeline
from torch import Tensor

from lesionforge.core.context import Context
from lesionforge.core.errors import ConfigError
from lesionforge.kernels import seeded_normal, stream_of
from lesionforge.plugins.stable_diffusion import sampling
from lesionforge.plugins.stable_diffusion.attention import record_attention
from lesionforge.plugins.stable_diffusion.prompts import encode_prompts
from lesionforge.plugins.stable_diffusion.sampling import decode, encode, sample

CONTEXT = Context(torch.device("cpu"), "fp32", "painter")
PROMPTS = ["a brown spot", "", "irregular, dark"]
SEEDS = [7, 2**64 - 1, 12]


@cache
def opened(folder: Path) -> StableDiffusionPipeline:
    pipe = StableDiffusionPipeline.from_pretrained(folder)
    pipe.set_progress_bar_config(disable=True)
    return pipe


def pipeline(folder: Path, name: str) -> StableDiffusionPipeline:
    pipe = opened(folder)
    config = DDIMScheduler.load_config(folder / "scheduler")
    if name == "pndm":
        pipe.scheduler = PNDMScheduler.from_config({**config, "skip_prk_steps": True})
    elif name == "ddim":
        pipe.scheduler = DDIMScheduler.from_config(config)
    else:
        pipe.scheduler = DPMSolverMultistepScheduler.from_config({**config, "timestep_spacing": "linspace"})
    return pipe


@pytest.mark.parametrize("name", ["ddim", "pndm", "dpm-solver++"])
@pytest.mark.parametrize(("kind", "scale"), [("epsilon", 7.5), ("v_prediction", 7.5), ("epsilon", 1.0)])
def test_the_loop_agrees_with_diffusers_pipeline(loaded_base, tiny_folder, name, kind, scale):
    start = seeded_normal(SEEDS, (4, 16, 16), stream=stream_of("painter"))
    pipe = pipeline(tiny_folder(2, kind), name)
    expected = pipe(
        PROMPTS,
        latents=start,
        num_inference_steps=4,
        guidance_scale=scale,
        negative_prompt=["blurred"] * 3,
        output_type="latent",
    ).images
    actual = sample(
        loaded_base(2, kind),
        PROMPTS,
        SEEDS,
        context=CONTEXT,
        steps=4,
        scheduler=name,
        guidance_scale=scale,
        negative_prompt="blurred",
    )
    torch.testing.assert_close(actual, expected, atol=2e-4, rtol=1e-4)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "pndm", "dpm-solver++", "sde-dpm-solver++"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_case_has_the_same_bits_wherever_it_stands(loaded_base, name, precision):
    base, context = loaded_base(2, "epsilon"), Context(torch.device("cpu"), precision, "painter")

    def run(rows: list[int]) -> Tensor:
        prompts, seeds = [PROMPTS[row] for row in rows], [SEEDS[row] for row in rows]
        latents = sample(base, prompts, seeds, context=context, steps=3, scheduler=name)
        assert latents.dtype == torch.float32 and latents.shape == (len(rows), 4, 16, 16)
        return decode(base, latents, context=context)

    first, other = run([0, 1, 2]), run([2, 0, 1])
    assert torch.equal(first[[2, 0, 1]], other)
    alone = run([1])
    torch.testing.assert_close(alone, first[1:2], atol=1e-4 if precision == "fp32" else 0.1, rtol=0)


@pytest.mark.parametrize(("name", "eta"), [("ddpm", 0.0), ("ddim", 0.7), ("sde-dpm-solver++", 0.0)])
def test_every_stochastic_step_takes_its_own_draw_of_the_stages_stream(loaded_base, monkeypatch, name, eta):
    asked = []

    def noted(keys: Tensor, shape: tuple[int, ...], *, step: int, stream: int, device: torch.device) -> Tensor:
        asked.append((keys.tolist(), tuple(shape), step, stream))
        return seeded_normal(keys, shape, step=step, stream=stream, device=device)

    monkeypatch.setattr("lesionforge.plugins.diffusion.noise.seeded_normal", noted)
    sample(loaded_base(2, "epsilon"), PROMPTS, SEEDS, context=CONTEXT, steps=3, scheduler=name, eta=eta, stream="brush")
    assert asked == [([7, -1, 12], (4, 16, 16), draw, stream_of("brush")) for draw in range(4)]


def test_the_guide_sees_every_step_and_its_latents_go_on(loaded_base):
    base, seen = loaded_base(2, "epsilon"), []

    def shifted(latents: Tensor, step: int, timestep: int) -> Tensor:
        seen.append((step, timestep))
        return latents + 0.5 if step == 1 else latents

    plain = sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=4, guide=lambda latents, step, timestep: latents)
    assert torch.equal(plain, sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=4))
    guided = sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=4, guide=shifted)
    assert seen == [(0, 751), (1, 501), (2, 251), (3, 1)]
    assert (guided - plain).abs().max() > 0.1


def test_a_guide_follows_the_gradient_of_recorded_attention(loaded_base):
    """Layout guidance in small: attention to the second token shrinks under the gradient's steps, case by case."""
    base = loaded_base(2, "epsilon")
    encoded = encode_prompts(base, PROMPTS)
    recording = record_attention(base.unet, cross_attention=[2], stop=True)
    losses = []

    def guide(latents: Tensor, step: int, timestep: int) -> Tensor:
        with torch.enable_grad():
            latents = latents.detach().requires_grad_()
            with recording:
                base.unet(latents, timestep, encoded.states)
            maps = recording.cross_attention()
            scores = (maps.query @ maps.key[:, :, 1, :, None]).square().mean(dim=(1, 2, 3))
            losses.append(scores.detach())
            (slope,) = torch.autograd.grad(scores.sum(), latents)
        return (latents - 100 * slope).detach()

    guided = sample(base, encoded, SEEDS, context=CONTEXT, steps=4, guide=guide)
    assert torch.stack(losses).shape == (4, 3) and not guided.requires_grad
    backwards = encode_prompts(base, PROMPTS[::-1])
    encoded = backwards
    again = sample(base, backwards, SEEDS[::-1], context=CONTEXT, steps=4, guide=guide)
    assert torch.equal(again.flip(0), guided)


def test_a_guide_may_record_inside_a_recorded_sampling(loaded_base):
    """What layout guidance needs: truncated passes in the first steps, the maps of the last one at the end."""
    base = loaded_base(2, "epsilon")
    states = encode_prompts(base, PROMPTS).states
    guidance = record_attention(base.unet, cross_attention=[4], stop=True)

    def guide(latents: Tensor, step: int, timestep: int) -> Tensor:
        with guidance:
            base.unet(latents, timestep, states)
        return latents

    with record_attention(base.unet, self_attention=[2], cross_attention=[4]) as recording:
        guided = sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=2, guide=guide)
        plain = sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=2)
    assert torch.equal(guided, plain) and recording.self_attention().query.shape[0] == 6


def test_maps_of_the_last_pass_stay_in_the_record_with_both_branches(loaded_base):
    base = loaded_base(2, "epsilon")
    with record_attention(base.unet, self_attention=[2], cross_attention=[4]) as recording:
        recorded = sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=2)
    assert torch.equal(recorded, sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=2))
    maps = recording.cross_attention()
    assert maps.conditional.query.shape == (3, 20, 16, 8)
    with_prompt, without = maps.conditional.key, maps.unconditional.key
    # The second prompt is as empty as the negative one, the others are not.
    torch.testing.assert_close(with_prompt[1], without[1])
    assert (with_prompt[0] - without[0]).abs().max() > 1e-2


def test_progress_and_size(loaded_base):
    reported = []
    latents = sample(
        loaded_base(2, "epsilon"),
        PROMPTS,
        SEEDS,
        context=CONTEXT,
        steps=2,
        size=64,
        scheduler="pndm",
        progress=lambda done, total: reported.append((done, total)),
    )
    assert latents.shape == (3, 4, 8, 8) and reported == [(1, 3), (2, 3), (3, 3)]


def test_a_compiled_unet_samples_the_same_and_is_compiled_once_for_all_steps(loaded_base, small_unet):
    base = replace(loaded_base(2, "epsilon"), unet=small_unet.eval())
    expected = sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=4)
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    base.compiled(backend="eager")
    sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=1)
    graphs = torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert torch.equal(sample(base, PROMPTS, SEEDS, context=CONTEXT, steps=4), expected)
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs > 0
    torch._dynamo.reset()


def test_a_compiled_unet_has_code_of_its_own_for_each_batch_size(loaded_base, small_unet):
    """Code for any size would serve batches that come later, and a case would depend on what was drawn before it."""
    sizes = []

    def backend(graph, inputs):
        sizes.extend(size for tensor in inputs for size in getattr(tensor, "shape", [tensor]))
        return graph

    base = replace(loaded_base(2, "epsilon"), unet=small_unet.eval())
    torch._dynamo.reset()
    base.compiled(backend)  # type: ignore[arg-type]
    for count in (1, 2, 3):
        sample(base, PROMPTS[:count], SEEDS[:count], context=CONTEXT, steps=1)
    assert {2, 4, 6} <= set(sizes) and all(type(size) is int for size in sizes)
    torch._dynamo.reset()


def test_inductor_takes_what_it_is_told(loaded_base, small_unet):
    """Compilation waits for the first pass, the look at the options does not."""
    base = replace(loaded_base(2, "epsilon"), unet=small_unet)
    assert base.compiled() is base and small_unet._compiled_call_impl is not None


@pytest.mark.parametrize("size", [0, 4, 100])
def test_sizes_that_no_latent_fits_are_refused(loaded_base, size):
    with pytest.raises(ConfigError, match=f"size = {size} is no multiple of 8"):
        sample(loaded_base(2, "epsilon"), PROMPTS, SEEDS, context=CONTEXT, size=size)
    with pytest.raises(ConfigError, match="is no multiple of 8"):
        encode(loaded_base(2, "epsilon"), torch.zeros(1, 3, 64, 60))


def test_every_seed_needs_a_prompt(loaded_base):
    with pytest.raises(ConfigError, match="there are 3 prompts for 2 seeds"):
        sample(loaded_base(2, "epsilon"), PROMPTS, SEEDS[:2], context=CONTEXT)


def test_images_are_those_of_diffusers_and_large_batches_are_decoded_one_by_one(loaded_base, tiny_folder, monkeypatch):
    base = loaded_base(2, "epsilon")
    latents = 0.2 * torch.randn(3, 4, 8, 8, generator=torch.Generator().manual_seed(0))
    pipe = pipeline(tiny_folder(), "ddim")
    with torch.no_grad():
        expected = (pipe.vae.decode(latents / pipe.vae.config.scaling_factor).sample / 2 + 0.5).clamp(0, 1)
    images = decode(base, latents, context=CONTEXT)
    torch.testing.assert_close(images, expected)
    assert images.shape == (3, 3, 64, 64) and images.std() > 0
    batches = []
    handle = base.vae.decoder.register_forward_hook(lambda module, inputs, output: batches.append(len(output)))
    monkeypatch.setattr(sampling, "WHOLE_PIXELS", 2 * 64 * 64)
    torch.testing.assert_close(decode(base, latents, context=CONTEXT), images, atol=1e-5, rtol=0)
    handle.remove()
    assert batches == [1, 1, 1]
    assert decode(base, 1e3 * latents, context=CONTEXT).aminmax() == (0, 1)


def test_latents_of_images_are_the_scaled_posterior(loaded_base):
    base = loaded_base(2, "epsilon")
    images = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(1))
    noise = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(2))
    with torch.no_grad():
        mean, drawn = encode(base, images), encode(base, images, noise=noise)
        posterior = base.vae.encode(images * 2 - 1).latent_dist
    scale = base.vae.config.scaling_factor
    torch.testing.assert_close(mean, posterior.mode() * scale)
    torch.testing.assert_close(drawn, (posterior.mean + torch.exp(posterior.logvar / 2) * noise) * scale)
    encode(base, images.requires_grad_()).sum().backward()
    assert images.grad is not None
