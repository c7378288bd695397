from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from diffusers import DDIMScheduler, DDPMScheduler

from lesionforge.plugins.diffusion.schedule import NoiseSchedule

STABLE_DIFFUSION = NoiseSchedule(1000, 0.00085, 0.012, "scaled_linear", steps_offset=1, set_alpha_to_one=False)
TIMES = torch.tensor([0, 13, 500, 999])


def draws(seed: int) -> torch.Tensor:
    return torch.randn((4, 3, 5, 5), generator=torch.Generator().manual_seed(seed))


@pytest.mark.parametrize("kind", ["linear", "scaled_linear", "squaredcos_cap_v2"])
def test_noising_and_velocity_agree_with_diffusers(kind):
    schedule = NoiseSchedule(1000, 0.001, 0.01, kind, "v_prediction")
    theirs = DDPMScheduler(1000, 0.001, 0.01, kind)
    clean, noise = draws(0), draws(1)
    assert torch.equal(schedule.noised(clean, noise, TIMES), theirs.add_noise(clean, noise, TIMES))
    assert torch.equal(schedule.target(clean, noise, TIMES), theirs.get_velocity(clean, noise, TIMES))


@pytest.mark.parametrize("kind", ["epsilon", "v_prediction", "sample"])
def test_the_clean_image_comes_back_from_its_target(kind):
    schedule = replace(STABLE_DIFFUSION, prediction_type=kind)
    clean, noise = draws(0).double(), draws(1).double()
    noisy = schedule.noised(clean, noise, TIMES)
    torch.testing.assert_close(schedule.denoised(schedule.target(clean, noise, TIMES), noisy, TIMES), clean)


def test_one_timestep_serves_all_cases():
    clean, noise = draws(0), draws(1)
    every = STABLE_DIFFUSION.noised(clean, noise, torch.full((4,), 40))
    assert torch.equal(STABLE_DIFFUSION.noised(clean, noise, torch.tensor([40])), every)


def test_a_schedule_survives_its_file(tmp_path):
    schedule = replace(STABLE_DIFFUSION, prediction_type="v_prediction")
    schedule.ddim().save_pretrained(tmp_path)
    assert NoiseSchedule.from_config(DDIMScheduler.load_config(tmp_path)) == schedule


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"trained_betas": [0.1]}, "trained_betas"),
        ({"rescale_betas_zero_snr": True}, "rescale_betas_zero_snr"),
        ({"beta_schedule": "sigmoid"}, "beta_schedule must be one of linear, scaled_linear"),
        ({"prediction_type": "flow"}, "prediction_type must be one of epsilon"),
    ],
)
def test_other_kinds_are_refused(change, reason):
    with pytest.raises(ValueError, match=reason):
        NoiseSchedule.from_config({**STABLE_DIFFUSION.ddim().config, **change})
