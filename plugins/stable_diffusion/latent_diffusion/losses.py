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
    """Return the weighted error of noise prediction for scaled latents (N, C, h, w) and tokens (N, 77).

    Draws t uniformly and eps from torch's random state. ``loss`` is the mean over cases of
    min(SNR, gamma) / SNR ||eps - eps_theta(x_t, t)||^2, SNR = abar_t / (1 - abar_t) (Hang et al. 2023, "Efficient
    diffusion training via min-SNR weighting strategy"); ``noise_error`` is the same without weights.
    """
    timesteps = torch.randint(schedule.timesteps, (len(latents),)).to(latents.device)
    noise = torch.randn(latents.shape).to(latents)
    errors = noise_errors(network, schedule, latents, tokens, timesteps, noise)
    loss = (min_snr_weights(schedule, timesteps, gamma) * errors).mean()
    return {"loss": loss, "noise_error": errors.mean().detach()}


def noise_errors(
    network: nn.Module, schedule: NoiseSchedule, latents: Tensor, tokens: Tensor, timesteps: Tensor, noise: Tensor
) -> Tensor:
    """Return the mean squared error of the predicted noise of each case, (N,) fp32."""
    predicted = network(schedule.noised(latents, noise, timesteps), timesteps, tokens)
    return (predicted.float() - noise).square().mean(dim=(1, 2, 3))


def min_snr_weights(schedule: NoiseSchedule, timesteps: Tensor, gamma: float) -> Tensor:
    """Return min(SNR, gamma) / SNR at ``timesteps`` (N,)."""
    abar = schedule.ddim().alphas_cumprod.to(timesteps.device)[timesteps]
    snr = abar / (1 - abar)
    return snr.clamp(max=gamma) / snr
