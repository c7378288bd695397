"""From seeds to images: the reverse process with noise that belongs to each case."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from ...core.context import Context
from ..diffusion.noise import CaseNoise
from ..diffusion.schedulers import ReverseProcess
from .unet import DilatedUNet2D


@torch.inference_mode()
def sample(
    network: DilatedUNet2D,
    process: ReverseProcess,
    seeds: Sequence[int],
    *,
    size: int,
    context: Context,
    stream: str | None = None,
    class_labels: Sequence[int] | None = None,
    guidance_scale: float = 1.0,
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """Return one sample a seed, (N, C, size, size) fp32, nominally in [-1, 1].

    The start noise of a case is draw 0 of its seed and ``stream``, the noise of the k-th reverse step is draw k + 1.
    The network runs channels-last under the context's autocast, the scheduler in fp32, and nothing leaves the device.

    Args:
        seeds: one 64-bit seed a case.
        stream: name of the noise's stream, the stage's own unless given.
        class_labels: class number of each case, for a network with classes.
        guidance_scale: w in eps_none + w (eps_class - eps_none); 1 means the class-conditional prediction alone.
        progress: called with (steps done, steps).
    """
    noise = CaseNoise(seeds, (network.config["in_channels"], size, size), context, stream=stream)
    labels = None if class_labels is None else torch.tensor(list(class_labels), device=context.device)
    x = noise(0)
    # One autocast region for the whole loop: it casts the weights once.
    with context.autocast():
        for k, timestep in enumerate(process.timesteps):
            predicted = _predict(network, x, timestep, labels, guidance_scale)
            x = process.step(predicted, timestep, x, noise(k + 1) if process.stochastic else None)
            if progress is not None:
                progress(k + 1, len(process.timesteps))
    return x


def _predict(
    network: DilatedUNet2D, x: Tensor, timestep: int, class_labels: Tensor | None, guidance_scale: float
) -> Tensor:
    """Return eps_theta(x_t, t) in fp32, guided without a classifier (Ho and Salimans 2022) unless the scale is 1."""
    if class_labels is None or guidance_scale == 1.0:
        return network(x, timestep, class_labels).sample.float()
    twice = torch.cat((class_labels, torch.full_like(class_labels, network.null_class)))
    conditional, unconditional = network(torch.cat((x, x)), timestep, twice).sample.float().chunk(2)
    return unconditional + guidance_scale * (conditional - unconditional)
