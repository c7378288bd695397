"""Measures lesionforge: `make bench`, or `python benchmarks/run.py NAME ...` for single benchmarks.

Contenders of a benchmark take turns; the median of the repetitions is printed with their spread, beside the machine
and its load. Results go to benchmarks/results.json. Compare numbers of one run only.
"""

from __future__ import annotations

import argparse
import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

import torch
from diffusers import DDIMScheduler

import lesionforge as lf
from lesionforge.kernels import extract_masks, norm_act_conv2d, seeded_normal
from lesionforge.kernels.mask_extraction.ellipse import half_widths

RESULTS = Path(__file__).with_name("results.json")
Contenders = Mapping[str, Callable[[], Any]]


@dataclass(frozen=True)
class Row:
    """One contender's times in seconds."""

    benchmark: str
    contender: str
    threads: int
    median: float
    fastest: float
    slowest: float


def take_turns(name: str, contenders: Contenders, *, repetitions: int) -> list[Row]:
    """Time all contenders in turn, after one warm-up each."""
    times: dict[str, list[float]] = {contender: [] for contender in contenders}
    for work in contenders.values():
        work()
    for _ in range(repetitions):
        for contender, work in contenders.items():
            started = time.perf_counter()
            work()
            times[contender].append(time.perf_counter() - started)
    threads = torch.get_num_threads()
    return [Row(name, c, threads, statistics.median(t), min(t), max(t)) for c, t in times.items()]


def startup(repetitions: int) -> list[Row]:
    """Whole processes: `lesionforge --help` and `lesionforge plugins list`."""

    def call(*arguments: str) -> Callable[[], Any]:
        script = Path(sys.executable).with_name("lesionforge")
        return lambda: subprocess.run([script, *arguments], check=True, capture_output=True)

    contenders = {"--help": call("--help"), "plugins list": call("plugins", "list")}
    return take_turns("startup", contenders, repetitions=repetitions)


def seeded_noise(repetitions: int) -> list[Row]:
    """Normals of 32 cases of 3x64x64: reference, native kernel, and torch.randn, which knows no cases."""
    seeds, shape = list(range(32)), (3, 64, 64)
    contenders: dict[str, Callable[[], Any]] = {
        "reference": lambda: seeded_normal(seeds, shape, backend="reference"),
        "auto": lambda: seeded_normal(seeds, shape),
        "torch.randn": lambda: torch.randn(len(seeds), *shape),
    }
    return take_turns("seeded_noise 32x3x64x64", contenders, repetitions=repetitions)


def mask_extraction(repetitions: int) -> list[Row]:
    """Masks of 32 smooth maps: Otsu, closing by an ellipse of 5 pixels, largest component."""
    import numpy as np
    from scipy.ndimage import gaussian_filter

    rows = []
    for source, size in ((256, 256), (512, 512), (32, 512)):
        noise = np.random.default_rng(0).standard_normal((32, source, source), dtype=np.float32)
        maps = gaussian_filter(noise, (0, source / 20, source / 20))
        maps = (maps - maps.min((1, 2), keepdims=True)) / np.ptp(maps, axis=(1, 2), keepdims=True)
        tensor = torch.from_numpy(maps)
        contenders = {
            "scikit-image loop": lambda maps=maps, size=size: [_mask_by_scikit_image(one, size) for one in maps],
            "OpenCV loop": lambda maps=maps, size=size: [_mask_by_opencv(one, size) for one in maps],
            "reference": lambda tensor=tensor, size=size: extract_masks(tensor, size, backend="reference"),
            "auto": lambda tensor=tensor, size=size: extract_masks(tensor, size),
        }
        if not torch.equal(contenders["auto"](), contenders["reference"]()):
            raise AssertionError("mask_extraction: the backends disagree; run its tests before its benchmark")
        rows += take_turns(f"mask_extraction 32 x {source} to {size}", contenders, repetitions=repetitions)
    return rows


def _mask_by_opencv(values: Any, size: int) -> Any:
    import cv2

    cv2.setNumThreads(torch.get_num_threads())
    values = cv2.normalize(values, None, 0, 255, cv2.NORM_MINMAX)
    if len(values) != size:
        values = cv2.resize(values, (size, size), interpolation=cv2.INTER_LINEAR)
    _, mask = cv2.threshold(cv2.convertScaleAbs(values), 0, 1, cv2.THRESH_OTSU)
    mask = cv2.morphologyEx(mask, cv2.MORPH_CLOSE, cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (5, 5)))
    _, labels, facts, _ = cv2.connectedComponentsWithStats(mask)
    return cv2.compare(labels, int(1 + facts[1:, cv2.CC_STAT_AREA].argmax()), cv2.CMP_EQ)


def _mask_by_scikit_image(values: Any, size: int) -> Any:
    import numpy as np
    from skimage import filters, measure, morphology, transform

    if len(values) != size:
        values = transform.resize(values, (size, size), order=1, anti_aliasing=False)
    levels = (values * 255 + 0.5).astype(np.uint8)
    element = np.abs(np.arange(-2, 3)) <= np.array(half_widths(5))[:, None]
    mask = morphology.closing(levels > filters.threshold_otsu(levels), element, mode="ignore")
    labels = measure.label(mask, connectivity=2)
    return labels == 1 + np.bincount(labels.ravel())[1:].argmax()


BLOCKS = ((1, 128, 256, 1), (8, 128, 64, 1), (16, 64, 16, 2), (4, 256, 32, 2), (8, 512, 8, 4))


def dilated_block(repetitions: int) -> list[Row]:
    """norm_act_conv2d with shift and residual: eager float32 in contiguous layout, eager channels-last, and ours."""
    rows = []
    for cases, channels, edge, dilation in BLOCKS:
        for dtype in (torch.bfloat16, torch.float32):
            shapes = ((cases, channels, edge, edge), (channels,), (channels,), (channels, channels, 3, 3), (channels,))
            shapes = (*shapes, (cases, channels), (cases, channels, edge, edge))
            plain = [torch.randn(shape) for shape in shapes]
            last = [
                t.to(dtype, memory_format=torch.channels_last if t.ndim == 4 else torch.preserve_format) for t in plain
            ]

            def call(tensors: list[torch.Tensor], backend: str, dilation: int = dilation) -> Callable[[], Any]:
                *first, shift, residual = tensors
                settings = {"groups": 16, "dilation": dilation, "shift": shift, "residual": residual}
                return torch.no_grad()(lambda: norm_act_conv2d(*first, **settings, backend=backend))

            contenders = {
                "float32 NCHW": call(plain, "reference"),
                "best torch": call(last, "reference"),
                "auto": call(last, "auto"),
            }
            name = f"dilated_block {cases}x{channels}x{edge}x{edge} d{dilation} {str(dtype)[6:]}"
            rows += take_turns(name, contenders, repetitions=repetitions)
    return rows


def pipeline_overhead(repetitions: int) -> list[Row]:
    """The chain's stages alone against a whole run of the same 512 cases with encoding, hashing and syncing."""
    chain = lf.Chain.parse("phantom(size=64) | mask-quality")
    stages = chain.open(device="cpu", precision="fp32")
    count, size = 512, 32

    def stages_alone() -> None:
        for first in range(0, count, size):
            batch = lf.Batch.blank(size, first=first)
            for stage in stages:
                batch = stage(batch)

    def whole_run() -> None:
        with tempfile.TemporaryDirectory() as folder:
            output = Path(folder, "run")
            chain.run(count=count, batch_size=size, output=output, device="cpu", precision="fp32", report=False)

    rows = take_turns("pipeline_overhead 512", {"stages": stages_alone, "run": whole_run}, repetitions=repetitions)
    print(f"  peak memory of this process so far: {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")
    return rows


def sampling(repetitions: int) -> list[Row]:
    """EnhancedDDPM, 64 px, width 32, random weights, 16 cases, 10 DDIM steps: a plain diffusers loop against ours."""
    from lesionforge.core.context import Context, choose_precision
    from lesionforge.plugins.ddpm import blocks
    from lesionforge.plugins.ddpm.sampling import sample
    from lesionforge.plugins.ddpm.unet import DilatedUNet2D
    from lesionforge.plugins.diffusion.schedule import NoiseSchedule
    from lesionforge.plugins.diffusion.schedulers import ReverseProcess

    torch.manual_seed(0)
    network = DilatedUNet2D(width=32, attention_levels=()).eval()
    ours = DilatedUNet2D(width=32, attention_levels=()).eval().to(memory_format=torch.channels_last)
    ours.load_state_dict(network.state_dict())
    steps, cases = 10, 16
    device = torch.device("cpu")
    context = Context(device, choose_precision("auto", device), "ddpm")

    fused, by_torch = blocks.norm_act_conv2d, partial(blocks.norm_act_conv2d, backend="reference")

    def without_kernels(work: Callable[[], None]) -> Callable[[], None]:
        def run() -> None:
            blocks.norm_act_conv2d = by_torch
            try:
                work()
            finally:
                blocks.norm_act_conv2d = fused

        return run

    def plain() -> None:
        scheduler = DDIMScheduler(num_train_timesteps=1000)
        scheduler.set_timesteps(steps)
        images = torch.randn(cases, 3, 64, 64)
        with torch.no_grad():
            for timestep in scheduler.timesteps:
                noise = network(images, timestep.expand(cases)).sample
                images = scheduler.step(noise, timestep, images).prev_sample

    def lesionforge_sampler() -> None:
        with torch.no_grad():
            sample(ours, ReverseProcess(NoiseSchedule(), "ddim", steps), range(cases), size=64, context=context)

    name = f"sampling 64 px, 16 cases, 10 steps, {context.precision}"
    contenders = {
        "plain diffusers": without_kernels(plain),
        "ours, torch only": without_kernels(lesionforge_sampler),
        "lesionforge": lesionforge_sampler,
    }
    return take_turns(name, contenders, repetitions=repetitions)


BENCHMARKS = {
    work.__name__: work for work in (startup, seeded_noise, mask_extraction, dilated_block, pipeline_overhead, sampling)
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", choices=[[], *BENCHMARKS], default=[])
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--threads", type=int, nargs="*", default=[1, os.cpu_count() or 1])
    arguments = parser.parse_args()
    machine = {
        "processor": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "load": os.getloadavg()[0],
        "python": platform.python_version(),
        "torch": torch.__version__,
    }
    print(", ".join(f"{key} {value}" for key, value in machine.items()))
    rows: list[Row] = []
    for name in arguments.names or BENCHMARKS:
        for threads in dict.fromkeys(arguments.threads):
            torch.set_num_threads(threads)
            for row in BENCHMARKS[name](arguments.repetitions):
                rows.append(row)
                spread = f"{row.fastest:.4f} to {row.slowest:.4f}"
                print(f"{row.benchmark:45} {row.contender:16} {row.threads} threads  {row.median:9.4f} s  ({spread})")
    RESULTS.write_text(json.dumps({"machine": machine, "rows": [vars(row) for row in rows]}, indent=1) + "\n")


if __name__ == "__main__":
    main()
