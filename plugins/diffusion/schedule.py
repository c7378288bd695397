"""The forward process that a network was trained on, and what it predicts."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Literal, Self, get_args

import torch
from diffusers.schedulers.scheduling_ddim import DDIMScheduler
from torch import Tensor

BetaSchedule = Literal["linear", "scaled_linear", "squaredcos_cap_v2"]
PredictionType = Literal["epsilon", "v_prediction", "sample"]


@dataclass(frozen=True)
class NoiseSchedule:
    """x_t = sqrt(abar_t) x_0 + sqrt(1 - abar_t) eps for t = 0 .. timesteps - 1 (Ho et al. 2020, eq. 4).

    Attributes:
        timesteps: T, the number of noise levels.
        beta_start: first of the betas.
        beta_end: last of the betas.
        beta_schedule: how the betas lie between: linear, linear in their roots, or cosine in abar.
        prediction_type: what the network says of x_t: ``epsilon``, ``v_prediction`` (v = sqrt(abar) eps -
            sqrt(1 - abar) x_0; Salimans and Ho 2022) or ``sample`` (x_0).
        steps_offset: added to the timesteps that a sampler visits; 1 for Stable Diffusion.
        set_alpha_to_one: whether the last step of DDIM and PNDM leads to abar = 1, not to abar_0.
    """

    timesteps: int = 1000
    beta_start: float = 1e-4
    beta_end: float = 0.02
    beta_schedule: BetaSchedule = "linear"
    prediction_type: PredictionType = "epsilon"
    steps_offset: int = 0
    set_alpha_to_one: bool = True

    @classmethod
    def from_config(cls, config: Mapping[str, Any]) -> Self:
        """Read the configuration of one of diffusers' schedulers, with diffusers' defaults for what it leaves out.

        Raises:
            KeyError: the betas are missing.
            ValueError: the betas or the prediction are of a kind that is not supported.
        """
        if config.get("trained_betas") is not None or config.get("rescale_betas_zero_snr"):
            raise ValueError("schedules with trained_betas or rescale_betas_zero_snr are not supported")
        for key, kinds in (("beta_schedule", BetaSchedule), ("prediction_type", PredictionType)):
            if key in config and config[key] not in get_args(kinds):
                raise ValueError(f"{key} must be one of {', '.join(get_args(kinds))}, not {config[key]!r}")
        return cls(
            int(config["num_train_timesteps"]),
            float(config["beta_start"]),
            float(config["beta_end"]),
            config.get("beta_schedule", "linear"),
            config.get("prediction_type", "epsilon"),
            int(config.get("steps_offset", 0)),
            bool(config.get("set_alpha_to_one", True)),
        )

    def betas(self) -> dict[str, Any]:
        """Return the arguments that all of diffusers' schedulers share."""
        return {
            "num_train_timesteps": self.timesteps,
            "beta_start": self.beta_start,
            "beta_end": self.beta_end,
            "beta_schedule": self.beta_schedule,
            "prediction_type": self.prediction_type,
        }

    def ddim(self, *, clip_sample: bool = False) -> DDIMScheduler:
        """Return it as a DDIM scheduler, whose configuration holds all of it; save it with ``save_pretrained``."""
        return DDIMScheduler(
            **self.betas(),
            steps_offset=self.steps_offset,
            set_alpha_to_one=self.set_alpha_to_one,
            clip_sample=clip_sample,
        )

    def noised(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return x_t (N, ...) of x_0 = ``clean`` (N, ...) at ``timesteps`` (N,)."""
        signal, spread = self._levels(clean, timesteps)
        return signal * clean + spread * noise

    def target(self, clean: Tensor, noise: Tensor, timesteps: Tensor) -> Tensor:
        """Return what the network should predict of x_t, (N, ...)."""
        if self.prediction_type == "epsilon":
            return noise
        if self.prediction_type == "sample":
            return clean
        signal, spread = self._levels(clean, timesteps)
        return signal * noise - spread * clean

    def denoised(self, prediction: Tensor, noisy: Tensor, timesteps: Tensor) -> Tensor:
        """Return the x_0 (N, ...) that ``prediction`` means for x_t = ``noisy`` at ``timesteps`` (N,)."""
        if self.prediction_type == "sample":
            return prediction
        signal, spread = self._levels(noisy, timesteps)
        if self.prediction_type == "epsilon":
            return (noisy - spread * prediction) / signal
        return signal * noisy - spread * prediction

    def _levels(self, like: Tensor, timesteps: Tensor) -> tuple[Tensor, Tensor]:
        """Return sqrt(abar_t) and sqrt(1 - abar_t), to multiply tensors shaped like ``like``."""
        abar = self._abar.to(like.device, torch.promote_types(like.dtype, torch.float32))
        abar = abar[timesteps.to(like.device)].view(-1, *(1,) * (like.ndim - 1))
        return abar.sqrt().to(like.dtype), (1 - abar).sqrt().to(like.dtype)

    @cached_property
    def _abar(self) -> Tensor:
        return self.ddim().alphas_cumprod
