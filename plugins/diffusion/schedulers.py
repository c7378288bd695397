"""diffusers' schedulers, all stepped with noise that the caller gives: a case's noise is its own, never drawn here."""

from __future__ import annotations

from dataclasses import replace

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from diffusers.schedulers.scheduling_ddpm import DDPMScheduler, DDPMSchedulerOutput
from diffusers.schedulers.scheduling_dpmsolver_multistep import DPMSolverMultistepScheduler
from diffusers.schedulers.scheduling_pndm import PNDMScheduler
from torch import Tensor

from ...core.errors import ConfigError
from .schedule import NoiseSchedule

DEFAULT_STEPS = {"ddim": 50, "pndm": 50, "dpm-solver++": 25, "sde-dpm-solver++": 25}
SCHEDULERS = ("ddpm", *DEFAULT_STEPS)


class GivenNoiseDDPMScheduler(DDPMScheduler):
    """diffusers' DDPM scheduler whose :meth:`step` takes its noise as ``variance_noise`` and draws none."""

    def step(
        self,
        model_output: Tensor,
        timestep: int,
        sample: Tensor,
        generator: torch.Generator | None = None,
        return_dict: bool = True,
        variance_noise: Tensor | None = None,
    ) -> DDPMSchedulerOutput | tuple:
        """Go from x_t to the previous timestep s (ancestral sampling, paper section 3.1; Ho et al. 2020, eq. 6, 7, 11).

        With a = abar_t / abar_s and beta = 1 - a (alpha_t and beta_t where s = t - 1),

            x0 = (x_t - sqrt(1 - abar_t) eps) / sqrt(abar_t), clamped if ``clip_sample``; from v or as x0 likewise
            x_s = sqrt(abar_s) beta / (1 - abar_t) x0 + sqrt(a) (1 - abar_s) / (1 - abar_t) x_t + sigma z

        which without clamping is the paper's (x_t - beta / sqrt(1 - abar_t) eps) / sqrt(alpha_t) + sigma z. The paper
        leaves sigma open: ``fixed_small`` takes the posterior's variance (1 - abar_s) / (1 - abar_t) beta,
        ``fixed_large`` takes beta. The last step adds no noise.

        Raises:
            ValueError: no noise was given where it is needed, or an RNG was, or the configuration is of another kind.
        """
        if self.config["thresholding"]:
            raise ValueError("this scheduler steps without dynamic thresholding")
        if generator is not None:
            raise ValueError("give the step's noise as variance_noise, not an RNG")
        previous = int(self.previous_timestep(timestep))
        abar = self.alphas_cumprod[timestep]
        abar_previous = self.alphas_cumprod[previous] if previous >= 0 else torch.ones_like(abar)
        alpha = abar / abar_previous
        clean = self._clean(model_output, sample, abar)
        if self.config["clip_sample"]:
            limit = self.config["clip_sample_range"]
            clean = clean.clamp(-limit, limit)
        mean = abar_previous.sqrt() * (1 - alpha) / (1 - abar) * clean
        mean = mean + alpha.sqrt() * (1 - abar_previous) / (1 - abar) * sample
        if previous >= 0:
            if variance_noise is None:
                raise ValueError(f"the step at timestep {timestep} needs variance_noise")
            mean = mean + self._sigma(alpha, abar, abar_previous) * variance_noise
        if not return_dict:
            return mean, clean
        return DDPMSchedulerOutput(prev_sample=mean, pred_original_sample=clean)

    def _clean(self, prediction: Tensor, sample: Tensor, abar: Tensor) -> Tensor:
        kind = self.config["prediction_type"]
        if kind == "epsilon":
            return (sample - (1 - abar).sqrt() * prediction) / abar.sqrt()
        return prediction if kind == "sample" else abar.sqrt() * sample - (1 - abar).sqrt() * prediction

    def _sigma(self, alpha: Tensor, abar: Tensor, abar_previous: Tensor) -> Tensor:
        kind = self.config["variance_type"]
        if kind == "fixed_small":
            return ((1 - abar_previous) / (1 - abar) * (1 - alpha)).sqrt()
        if kind == "fixed_large":
            return (1 - alpha).sqrt()
        raise ValueError(f"variance_type must be fixed_small or fixed_large, not {kind!r}")


class ClippedDPMSolver(DPMSolverMultistepScheduler):
    """diffusers' DPM-Solver++ with the predicted clean image clamped to [-1, 1], which it has no option for."""

    def convert_model_output(  # pyright: ignore[reportIncompatibleMethodOverride]
        self, model_output: Tensor, *, sample: Tensor
    ) -> Tensor:
        """Return the predicted clean image, clamped."""
        return super().convert_model_output(model_output, sample=sample).clamp(-1, 1)


def ancestral(
    schedule: NoiseSchedule, *, variance: str = "posterior", clip_sample: bool = True
) -> GivenNoiseDDPMScheduler:
    """Return the schedule as a DDPM scheduler, whose steps have the ``posterior`` variance or ``beta``."""
    kind = {"posterior": "fixed_small", "beta": "fixed_large"}[variance]
    return GivenNoiseDDPMScheduler(
        **schedule.betas(),
        steps_offset=schedule.steps_offset,
        variance_type=kind,  # type: ignore[arg-type]
        clip_sample=clip_sample,
    )


class ReverseProcess:
    """One way from noise to image: a scheduler with its timesteps set. Make a new one for every batch.

    Attributes:
        timesteps: the timesteps visited, from noise to image.
        stochastic: whether steps need noise.
    """

    def __init__(
        self,
        schedule: NoiseSchedule,
        name: str,
        steps: int | None = None,
        *,
        eta: float = 0.0,
        variance: str = "posterior",
        clip_sample: bool = True,
    ) -> None:
        """Choose the way.

        Args:
            name: ``ddpm`` (ancestral), ``ddim``, ``pndm`` (Liu et al. 2022, without its Runge-Kutta steps, which
                visits one timestep more than ``steps``), ``dpm-solver++`` or ``sde-dpm-solver++``.
            steps: network evaluations; None means all timesteps for ``ddpm``, else 50 (DDIM, PNDM) or 25.
            eta: share of DDIM's noise, 0 for none.
            variance: of the ancestral step, ``posterior`` or ``beta``.
            clip_sample: clamp the predicted clean image to [-1, 1] at every step.

        Raises:
            ConfigError: more steps than the network has timesteps, an unknown name, or a way that cannot be gone with
                this prediction or clamp.
        """
        steps = DEFAULT_STEPS.get(name, schedule.timesteps) if steps is None else steps
        if steps > schedule.timesteps:
            raise ConfigError(
                f"num_inference_steps = {steps} is more than the {schedule.timesteps} timesteps that the network was "
                "trained with; lower it"
            )
        self._scheduler = _scheduler(_within(schedule, steps), name, variance=variance, clip_sample=clip_sample)
        self._eta = eta
        self._scheduler.set_timesteps(steps)
        self.timesteps: list[int] = self._scheduler.timesteps.tolist()  # type: ignore[union-attr]
        self.stochastic = name in ("ddpm", "sde-dpm-solver++") or (name == "ddim" and eta > 0)

    def step(self, prediction: Tensor, timestep: int, sample: Tensor, noise: Tensor | None) -> Tensor:
        """Return the sample at the next of :attr:`timesteps`; all tensors (N, C, H, W) fp32."""
        scheduler = self._scheduler
        if isinstance(scheduler, PNDMScheduler):
            return scheduler.step(prediction, timestep, sample, return_dict=False)[0]
        if isinstance(scheduler, GivenNoiseDDPMScheduler):
            return scheduler.step(prediction, timestep, sample, return_dict=False, variance_noise=noise)[0]
        if isinstance(scheduler, DDIMScheduler):
            result = scheduler.step(
                prediction, timestep, sample, eta=self._eta, variance_noise=noise, return_dict=False
            )
            return result[0]
        return scheduler.step(prediction, timestep, sample, variance_noise=noise, return_dict=False)[0]


def _within(schedule: NoiseSchedule, steps: int) -> NoiseSchedule:
    """Return the schedule with an offset that leads no step beyond the last timestep."""
    room = schedule.timesteps - 1 - (steps - 1) * (schedule.timesteps // steps)
    return replace(schedule, steps_offset=min(schedule.steps_offset, room))


def _scheduler(
    schedule: NoiseSchedule, name: str, *, variance: str, clip_sample: bool
) -> GivenNoiseDDPMScheduler | DDIMScheduler | PNDMScheduler | DPMSolverMultistepScheduler:
    betas = {**schedule.betas(), "steps_offset": schedule.steps_offset}
    if name == "ddpm":
        return ancestral(schedule, variance=variance, clip_sample=clip_sample)
    if name == "ddim":
        return schedule.ddim(clip_sample=clip_sample)
    if name == "pndm":
        if clip_sample or schedule.prediction_type == "sample":
            raise ConfigError("scheduler pndm neither clamps nor steps networks that predict x_0; take another")
        return PNDMScheduler(**betas, skip_prk_steps=True, set_alpha_to_one=schedule.set_alpha_to_one)
    if name in ("dpm-solver++", "sde-dpm-solver++"):
        solver = ClippedDPMSolver if clip_sample else DPMSolverMultistepScheduler
        kind = "dpmsolver++" if name == "dpm-solver++" else "sde-dpmsolver++"
        return solver(**betas, algorithm_type=kind)
    raise ConfigError(f"scheduler {name!r} is unknown; there are {', '.join(SCHEDULERS)}")
