"""End to end: cases of EnhancedDDPM, by a plain diffusers loop and by lesionforge with its kernels off and on."""

from __future__ import annotations

from functools import partial
from typing import NamedTuple

import torch
from diffusers import DDIMScheduler
from torch import Tensor

from lesionforge.core.context import Context, choose_precision
from lesionforge.kernels import seeded_normal, stream_of
from lesionforge.kernels.measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender
from lesionforge.plugins.ddpm.sampling import sample
from lesionforge.plugins.ddpm.unet import DilatedUNet2D
from lesionforge.plugins.diffusion.schedule import NoiseSchedule
from lesionforge.plugins.diffusion.schedulers import ReverseProcess

from .benchmark import Benchmark
from .kernels_off import without_kernels

STAGE = "ddpm"
# Root mean square, by precision; bfloat16 rounds every map of every step.
TOLERANCES = {"fp32": 1e-3, "bf16": 3e-2}


class Sampling(NamedTuple):
    """Edge in pixels, cases, steps of DDIM, width of the U-Net."""

    size: int
    cases: int
    steps: int
    width: int


def sampling_case(shape: Sampling, device: str) -> Case:
    """Random weights, equal in all contenders; the start noise is that of the cases' seeds."""
    place = torch.device(device)
    context = Context(place, choose_precision("auto", place), STAGE)
    network = random_network(shape.width).to(place)
    ours = random_network(shape.width).to(place, memory_format=torch.channels_last)

    def lesionforge() -> Tensor:
        process = ReverseProcess(NoiseSchedule(), "ddim", shape.steps)
        return sample(ours, process, range(shape.cases), size=shape.size, context=context)

    released = without_kernels(partial(diffusers_loop, network, shape, device))
    torch_only = without_kernels(lesionforge)
    tolerance = TOLERANCES[context.precision]
    contenders = (
        Contender("diffusers", released, "plain loop, float32", TOLERANCES["fp32"], REFERENCE_METHOD),
        Contender("torch only", torch_only, f"lesionforge without kernels, {context.precision}", tolerance, BEST_TORCH),
        Contender("lesionforge", lesionforge, f"with kernels, {context.precision}", tolerance, automatic=True),
    )
    label = f"{shape.cases} cases of {shape.size} px, {shape.steps} steps of DDIM, width {shape.width}"
    return Case("sampling", label, contenders, released, device, root_mean_square)


@torch.no_grad()
def diffusers_loop(network: DilatedUNet2D, shape: Sampling, device: str) -> Tensor:
    """Sampling as diffusers' own pipelines write it."""
    scheduler = DDIMScheduler(num_train_timesteps=1000)
    scheduler.set_timesteps(shape.steps)
    seeds, stream = range(shape.cases), stream_of(STAGE)
    images = seeded_normal(seeds, (3, shape.size, shape.size), stream=stream, device=device)
    for timestep in scheduler.timesteps:
        noise = network(images, timestep.to(device).expand(shape.cases)).sample
        images = scheduler.step(noise, timestep, images).prev_sample
    return images


def random_network(width: int) -> DilatedUNet2D:
    """A fresh network predicts zero; this one has weights that are all alive."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        network = DilatedUNet2D(width=width, attention_levels=()).eval()
        for parameter in network.parameters():
            torch.nn.init.normal_(parameter, std=0.05)
    return network


def root_mean_square(made: Tensor, truth: Tensor) -> float:
    """Of the difference, relative to that of the truth."""
    return float((made - truth).square().mean().sqrt() / truth.square().mean().sqrt())


BENCHMARK = Benchmark(
    "sampling",
    "EnhancedDDPM end to end, native kernels off and on",
    (Sampling(64, 16, 10, 32), Sampling(128, 4, 10, 32)),
    (Sampling(16, 2, 2, 8),),
    sampling_case,
)
