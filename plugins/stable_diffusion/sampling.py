"""From prompts and seeds to latents, and between latents and images."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...core.context import Context
from ...core.errors import ConfigError
from ..diffusion.noise import CaseNoise
from ..diffusion.schedulers import ReverseProcess
from .base import LATENT_CHANNELS, StableDiffusionBase
from .posterior import check_sizes, posterior
from .prompts import EncodedPrompts, encode_prompts
from .settings import SamplingSettings

Guide = Callable[[Tensor, int, int], Tensor]
"""Called before every step with (latents, number of the step, timestep); returns the latents to go on with."""
Residuals = tuple[Sequence[Tensor], Tensor]
"""What is added to a U-Net's skip connections, in their order, and to its middle block's output."""
Control = Callable[[Tensor, Tensor, Tensor], Residuals]
"""Called before every pass of the U-Net with its arguments: latents, timestep and text states."""
WHOLE_PIXELS = 4 * 512 * 512
"""Images of a batch that have more pixels than this together are decoded one by one (ours)."""


@torch.no_grad()
def sample(
    base: StableDiffusionBase,
    prompts: EncodedPrompts | Sequence[str],
    seeds: Sequence[int],
    *,
    context: Context,
    steps: int | None = None,
    guidance_scale: float = 7.5,
    scheduler: str = "ddim",
    eta: float = 0.0,
    size: int | None = None,
    negative_prompt: str = "",
    stream: str | None = None,
    guide: Guide | None = None,
    control: Control | None = None,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return the latents (N, 4, size / f, size / f) fp32 of N cases, f = ``base.downsampling``; see :func:`decode`.

    The start noise of a case is draw 0 of its seed and ``stream``, the noise of the k-th step is draw k + 1: a case
    depends on its own prompt and seed. The U-Net runs under the context's autocast, both branches of classifier-free
    guidance in one batch, the unconditional one first; the scheduler steps in fp32.

    Args:
        prompts: N texts, or what a :class:`~.prompts.PromptEncoder` made of them.
        seeds: one 64-bit seed a case.
        context: must be on the base's device.
        steps: see :class:`ReverseProcess`, as for ``scheduler`` and ``eta``.
        guidance_scale: w in eps_negative + w (eps_prompt - eps_negative); with 1 only the prompt's branch is computed.
        size: edge of the image in pixels, the base's own unless given.
        stream: name of the noise's stream, the stage's own unless given.
        guide: changes the latents before each step. It runs without gradients unless it enables them.
        control: adds to the U-Net's activations, as a ControlNet does; it sees both branches.
        progress: called with (steps done, steps).

    Raises:
        ConfigError: the size does not fit the base, or prompts and seeds are not of one number, or the scheduler
            cannot be used.
    """
    edge = latent_size(base, size)
    encoded = prompts if isinstance(prompts, EncodedPrompts) else encode_prompts(base, prompts)
    if len(encoded.states) != len(seeds):
        raise ConfigError(f"there are {len(encoded.states)} prompts for {len(seeds)} seeds; give one a case")
    states = _branches(base, encoded.states.to(context.device), negative_prompt, guidance_scale)
    process = ReverseProcess(base.schedule, scheduler, steps, eta=eta, clip_sample=False)
    noise = CaseNoise(seeds, (LATENT_CHANNELS, edge, edge), context, stream=stream)
    # On the device, and not numbers: a compiled U-Net would be compiled anew for each.
    times = torch.tensor(process.timesteps, device=context.device)
    latents = noise(0)
    # One autocast region for the whole loop: it casts the weights once.
    with context.autocast():
        for k, timestep in enumerate(process.timesteps):
            if guide is not None:
                latents = guide(latents, k, timestep)
            prediction = _predict(base, latents, times[k], states, guidance_scale, control)
            latents = process.step(prediction, timestep, latents, noise(k + 1) if process.stochastic else None)
            if progress is not None:
                progress(k + 1, len(process.timesteps))
    return latents


def sample_cases(
    base: StableDiffusionBase,
    prompts: EncodedPrompts,
    seeds: Sequence[int],
    settings: SamplingSettings,
    context: Context,
    *,
    size: int | None = None,
    negative_prompt: str = "",
    guide: Guide | None = None,
    control: Control | None = None,
) -> Tensor:
    """Return the latents of a generator's cases as :func:`sample` draws them by ``settings``, told to ``context``.

    Args:
        size: in place of that of the settings.
    """
    return sample(
        base,
        prompts,
        seeds,
        context=context,
        steps=settings.num_inference_steps,
        guidance_scale=settings.guidance_scale,
        scheduler=settings.scheduler,
        size=size or settings.size,
        negative_prompt=negative_prompt,
        guide=guide,
        control=control,
        progress=lambda done, total: context.progress(done, total, {}),
    )


def decode(base: StableDiffusionBase, latents: Tensor, *, context: Context) -> Tensor:
    """Return the images (N, 3, H, W) fp32 in [0, 1] of latents (N, 4, H / f, W / f)."""
    return ((decoded_channels(base, latents, context=context) + 1) / 2).clamp(0, 1)


@torch.no_grad()
def decoded_channels(base: StableDiffusionBase, latents: Tensor, *, context: Context) -> Tensor:
    """Return the decoder's output (N, C, H, W) fp32, colours in [-1, 1] or so, of latents (N, 4, H / f, W / f)."""
    pixels = latents.shape[0] * latents.shape[2] * latents.shape[3] * base.downsampling**2
    # All at once or one by one, never some: then a case has the same bits wherever in the batch it stands.
    parts = latents.split(1) if pixels > WHOLE_PIXELS else (latents,)
    scale = base.vae.config["scaling_factor"]
    with context.autocast():
        channels = [base.vae.decode(part / scale, return_dict=False)[0].float() for part in parts]  # type: ignore[union-attr]
    return torch.cat(channels)


def encode(base: StableDiffusionBase, images: Tensor, *, noise: Tensor | None = None) -> Tensor:
    """Return the latents (N, 4, H / f, W / f) of images (N, 3, H, W) in [0, 1], scaled as the U-Net takes them.

    Args:
        noise: standard normals shaped like the latents, to draw from the posterior; None takes its mean.

    Raises:
        ConfigError: the images' edges are no multiples of f.
    """
    distribution = posterior(base.vae, images)
    latents = distribution.mean if noise is None else distribution.mean + distribution.std * noise
    return latents * base.vae.config["scaling_factor"]


def latent_size(base: StableDiffusionBase, size: int | None) -> int:
    """Return the edge of the latents of images of ``size`` pixels, the base's own unless given.

    Raises:
        ConfigError: the size is no multiple of the pixels along the edge of a latent.
    """
    size = base.size if size is None else size
    check_sizes(base.vae, (size,))
    return size // base.downsampling


def _branches(base: StableDiffusionBase, states: Tensor, negative_prompt: str, guidance_scale: float) -> Tensor:
    """Return the text states that :func:`_predict` takes: (2N, 77, d), those of no prompt first, or with 1 as given."""
    if guidance_scale == 1.0:
        return states
    negative = encode_prompts(base, [negative_prompt]).states.to(states.device)
    return torch.cat((negative.expand_as(states), states))


def _predict(
    base: StableDiffusionBase,
    latents: Tensor,
    timestep: Tensor,
    states: Tensor,
    guidance_scale: float,
    control: Control | None,
) -> Tensor:
    """Return the network's prediction in fp32, guided without a classifier (Ho and Salimans 2022)."""
    if guidance_scale == 1.0:
        return _denoise(base, latents, timestep, states, control)
    both = _denoise(base, torch.cat((latents, latents)), timestep, states, control)
    unconditional, conditional = both.chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)


def _denoise(
    base: StableDiffusionBase, latents: Tensor, timestep: Tensor, states: Tensor, control: Control | None
) -> Tensor:
    skips, middle = (None, None) if control is None else control(latents, timestep, states)
    return base.unet(
        latents,
        timestep,
        states,
        down_block_additional_residuals=skips,  # type: ignore[arg-type]
        mid_block_additional_residual=middle,
        return_dict=False,
    )[0].float()
