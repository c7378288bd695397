"""What the two trainings minimise."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from ...diffusion.schedule import NoiseSchedule


def autoencoder_losses(
    network: nn.Module, images: Tensor, *, gradient_weight: float, kl_weight: float
) -> dict[str, Tensor]:
    """Return L1 + gradient_weight L_grad + kl_weight KL for (N, 3, H, W) images in [-1, 1].

    L1 is the mean absolute error of the decoded posterior sample. L_grad is the same of its differences between
    neighbouring pixels, left-right and up-down, which sharpens edges and hairs (ours: there is no pretrained
    perceptual network to compare by). KL is to N(0, 1), a mean over latent values (Kingma and Welling 2014, eq. 10).
    """
    decoded, mean, logvar = network(images)
    error = decoded.float() - images
    mean, logvar = mean.float(), logvar.float()
    pixel_error = error.abs().mean()
    gradient_error = (error.diff(dim=3).abs().mean() + error.diff(dim=2).abs().mean()) / 2
    kl = 0.5 * (mean.square() + logvar.exp() - 1 - logvar).mean()
    loss = pixel_error + gradient_weight * gradient_error + kl_weight * kl
    return {
        "loss": loss,
        "pixel_error": pixel_error.detach(),
        "gradient_error": gradient_error.detach(),
        "kl": kl.detach(),
    }


def denoising_losses(
    network: nn.Module, schedule: NoiseSchedule, latents: Tensor, tokens: Tensor, *, gamma: float
) -> dict[str, Tensor]:
    """Return the weighted error of the prediction for scaled latents (N, C, h, w) and tokens (N, 77).

    Draws t uniformly and eps from torch's random state. ``loss`` is the mean over cases of
    min(SNR + 1, gamma) / (SNR + 1) ||v - v_theta(x_t, t)||^2, see :func:`bounded_weights`; ``error`` is the same
    without weights.
    """
    timesteps = torch.randint(schedule.timesteps, (len(latents),)).to(latents.device)
    noise = torch.randn(latents.shape).to(latents)
    errors = prediction_errors(network, schedule, latents, tokens, timesteps, noise)
    loss = (bounded_weights(schedule, timesteps, gamma) * errors).mean()
    return {"loss": loss, "error": errors.mean().detach()}


def prediction_errors(
    network: nn.Module, schedule: NoiseSchedule, latents: Tensor, tokens: Tensor, timesteps: Tensor, noise: Tensor
) -> Tensor:
    """Return the mean squared error of what the schedule has the network predict, of each case, (N,) fp32."""
    predicted = network(schedule.noised(latents, noise, timesteps), timesteps, tokens)
    return (predicted.float() - schedule.target(latents, noise, timesteps)).square().mean(dim=(1, 2, 3))


def bounded_weights(schedule: NoiseSchedule, timesteps: Tensor, gamma: float) -> Tensor:
    """Return min(SNR + 1, gamma) / (SNR + 1) at ``timesteps`` (N,), SNR = abar_t / (1 - abar_t).

    An error of v weighs SNR + 1 as much as one of x_0 (Salimans and Ho 2022, section 4); gamma bounds that, as in
    min-SNR weighting (Hang et al. 2023), so that steps of little noise, which nobody sees, do not use up the network.
    """
    abar = schedule.ddim().alphas_cumprod.to(timesteps.device)[timesteps]
    return (gamma * (1 - abar)).clamp(max=1.0)
