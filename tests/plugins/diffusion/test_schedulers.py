from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler, DPMSolverMultistepScheduler, PNDMScheduler

from lesionforge.core.errors import ConfigError
from lesionforge.plugins.diffusion.schedule import NoiseSchedule
from lesionforge.plugins.diffusion.schedulers import SCHEDULERS, ReverseProcess, ancestral

SHAPE = (2, 3, 4, 4)


def prediction(x: torch.Tensor, timestep: int) -> torch.Tensor:
    """Stand in for a network."""
    return torch.tanh(x * (1 + timestep / 500) + 0.3)


def draws(seed: int, shape: tuple[int, ...] = SHAPE) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("variance", ["posterior", "beta"])
@pytest.mark.parametrize("t", [999, 998, 500, 100, 10, 1, 0])
def test_ancestral_step_is_the_papers_formula(t, variance):
    """x_{t-1} = (x_t - beta_t / sqrt(1 - abar_t) eps) / sqrt(alpha_t) + sigma_t z, z = 0 at the last step."""
    beta = np.linspace(1e-4, 0.02, 1000)
    abar = np.cumprod(1 - beta)
    x, eps, z = (draws(seed).double().numpy() for seed in (1, 2, 3))
    before = abar[t - 1] if t else 1.0
    sigma = np.sqrt(beta[t] if variance == "beta" else (1 - before) / (1 - abar[t]) * beta[t])
    expected = (x - beta[t] / np.sqrt(1 - abar[t]) * eps) / np.sqrt(1 - beta[t]) + (sigma * z if t else 0)

    process = ReverseProcess(NoiseSchedule(), "ddpm", variance=variance, clip_sample=False)
    assert process.timesteps == list(range(999, -1, -1))
    actual = process.step(
        *(torch.from_numpy(value) if not isinstance(value, int) else value for value in (eps, t, x, z))
    )
    # The schedule itself is float32, as in diffusers.
    np.testing.assert_allclose(actual.numpy(), expected, atol=2e-4)


@pytest.mark.parametrize("clip_sample", [True, False])
@pytest.mark.parametrize(("variance", "kind"), [("posterior", "fixed_small"), ("beta", "fixed_large")])
@pytest.mark.parametrize("steps", [None, 7])
def test_ddpm_agrees_with_diffusers_given_the_same_noise(steps, variance, kind, clip_sample):
    theirs = DDPMScheduler(50, variance_type=kind, clip_sample=clip_sample)
    theirs.set_timesteps(steps or 50)
    ours = ReverseProcess(NoiseSchedule(50), "ddpm", steps, variance=variance, clip_sample=clip_sample)
    assert ours.stochastic and ours.timesteps == theirs.timesteps.tolist()
    x = y = draws(0)
    rng, same = torch.Generator().manual_seed(9), torch.Generator().manual_seed(9)
    for t in ours.timesteps:
        x = theirs.step(prediction(x, t), t, x, generator=rng).prev_sample
        noise = torch.randn(SHAPE, generator=same) if t else None
        y = ours.step(prediction(y, t), t, y, noise)
    torch.testing.assert_close(y, x, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("eta", [0.0, 0.6])
def test_ddim_agrees_with_diffusers_given_the_same_noise(eta):
    theirs = DDIMScheduler(100, clip_sample=True)
    theirs.set_timesteps(10)
    ours = ReverseProcess(NoiseSchedule(100), "ddim", 10, eta=eta)
    assert ours.stochastic == (eta > 0)
    x = y = draws(0)
    for t in ours.timesteps:
        noise = draws(t) if eta else None
        x = theirs.step(prediction(x, t), t, x, eta=eta, variance_noise=noise).prev_sample
        y = ours.step(prediction(y, t), t, y, noise)
    assert torch.equal(x, y)


@pytest.mark.parametrize(("name", "kind"), [("dpm-solver++", "dpmsolver++"), ("sde-dpm-solver++", "sde-dpmsolver++")])
def test_dpm_solver_agrees_with_diffusers_given_the_same_noise(name, kind):
    theirs = DPMSolverMultistepScheduler(100, 1e-4, 0.02, algorithm_type=kind)
    theirs.set_timesteps(8)
    ours = ReverseProcess(NoiseSchedule(100), name, 8, clip_sample=False)
    assert ours.stochastic == (name == "sde-dpm-solver++")
    x = y = draws(0)
    for t in ours.timesteps:
        x = theirs.step(prediction(x, t), t, x, variance_noise=draws(t)).prev_sample
        y = ours.step(prediction(y, t), t, y, draws(t) if ours.stochastic else None)
    assert torch.equal(x, y)


@pytest.mark.parametrize("name", ["ddpm", "ddim", "dpm-solver++", "sde-dpm-solver++"])
def test_a_clamped_process_ends_within_range_whatever_the_network_says(name):
    process = ReverseProcess(NoiseSchedule(100), name, 10)
    x = draws(0)
    for t in process.timesteps:
        x = process.step(40 * prediction(x, t), t, x, draws(t) if process.stochastic else None)
    # The last step returns the clamped prediction of the clean image.
    assert x.abs().max() <= 1 + 1e-5


def test_missing_noise_is_an_error_and_never_drawn():
    scheduler = ancestral(NoiseSchedule(50))
    scheduler.set_timesteps(50)
    x = draws(0)
    with pytest.raises(ValueError, match="variance_noise"):
        scheduler.step(x, 20, x)
    with pytest.raises(ValueError, match="RNG"):
        scheduler.step(x, 20, x, generator=torch.Generator())
    assert scheduler.step(x, 0, x).prev_sample.shape == SHAPE


def test_defaults_of_the_number_of_steps():
    lengths = {
        name: len(ReverseProcess(NoiseSchedule(200), name).timesteps) for name in ("ddpm", "ddim", "dpm-solver++")
    }
    assert lengths == {"ddpm": 200, "ddim": 50, "dpm-solver++": 25}


def test_impossible_processes_are_refused():
    with pytest.raises(ConfigError, match="num_inference_steps = 11 is more than the 10 timesteps"):
        ReverseProcess(NoiseSchedule(10), "ddim", 11)
    with pytest.raises(ConfigError, match="euler"):
        ReverseProcess(NoiseSchedule(10), "euler", 5)


STABLE_DIFFUSION = NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False)


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction"])
def test_pndm_agrees_with_diffusers_and_visits_one_timestep_twice(kind):
    schedule = replace(STABLE_DIFFUSION, prediction_type=kind)
    theirs = PNDMScheduler.from_config({**schedule.ddim().config, "skip_prk_steps": True})
    theirs.set_timesteps(50)
    ours = ReverseProcess(schedule, "pndm", clip_sample=False)
    assert not ours.stochastic and ours.timesteps == theirs.timesteps.tolist()
    assert (len(ours.timesteps), ours.timesteps[:3], ours.timesteps[49]) == (51, [981, 961, 961], 21)
    x = y = draws(0)
    for t in ours.timesteps:
        x = theirs.step(prediction(x, t), t, x).prev_sample
        y = ours.step(prediction(y, t), t, y, None)
    assert torch.equal(x, y)


EVERY = [(name, kind) for name in SCHEDULERS for kind in ("epsilon", "v_prediction", "sample")]


@pytest.mark.parametrize(("name", "kind"), [pair for pair in EVERY if pair != ("pndm", "sample")])
def test_a_network_that_knows_the_image_is_led_to_it_whatever_it_predicts(name, kind):
    schedule = replace(STABLE_DIFFUSION, prediction_type=kind, set_alpha_to_one=True)
    process = ReverseProcess(schedule, name, 20, clip_sample=False)
    image = torch.tanh(draws(5)).double()
    x = draws(0).double()
    for t in process.timesteps:
        time = torch.full((len(x),), t)
        noise = (x - schedule.noised(image, torch.zeros_like(x), time)) / schedule.noised(
            torch.zeros_like(x), torch.ones_like(x), time
        )
        said = schedule.target(image, noise, time)
        torch.testing.assert_close(schedule.denoised(said, x, time), image)
        x = process.step(said, t, x, draws(t).double() if process.stochastic else None)
    torch.testing.assert_close(x, image, atol=2e-2 if name == "pndm" else 1e-4, rtol=0)


@pytest.mark.parametrize("steps", [1000, 999, 500, 7])
@pytest.mark.parametrize("name", ["ddpm", "ddim", "pndm", "dpm-solver++"])
def test_the_offset_leads_no_step_beyond_the_last_timestep(name, steps):
    process = ReverseProcess(STABLE_DIFFUSION, name, steps, clip_sample=False)
    assert max(process.timesteps) <= 999
    process.step(draws(1), process.timesteps[0], draws(0), draws(2))


def test_pndm_refuses_what_it_cannot_do():
    with pytest.raises(ConfigError, match="neither clamps"):
        ReverseProcess(STABLE_DIFFUSION, "pndm")
    with pytest.raises(ConfigError, match="predict x_0"):
        ReverseProcess(replace(STABLE_DIFFUSION, prediction_type="sample"), "pndm", clip_sample=False)
