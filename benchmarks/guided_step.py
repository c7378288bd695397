"""One layout-guided step of DiDGen on the topology of Stable Diffusion 2.1 base, with random weights.

What is timed: the gradient of the layout loss to the latents and the step down it (a pass through the U-Net with the
prompts alone, the loss, backward), then the noise prediction there with classifier-free guidance (a pass with both
prompts, without gradients). Text encoder, scheduler and decoder are left out: they are the same for all.

All contenders that must agree descend the released code's loss, since that is what the reference method computes; its
self-attention term looks at the lesion's rows only. Ours with the paper's two-sided loss, the default, has another
gradient by nature and is timed beside them. What must agree is the move of the latents, which is the gradient times the
paper's rate, and the noise predicted from there. In bfloat16 rounding in the cross-attention term hides an error in the
self-attention term, which float32 shows and `layout_loss` checks in both.

On a CPU the reference method is left out beyond one image at 64 x 64 latents: it goes image by image, so that more of
them take as many times longer, minutes each. The others are then held against its result for the first image, which
they must reach whatever else is in the batch.
"""

from __future__ import annotations

import copy
from collections.abc import Callable
from functools import lru_cache, partial
from itertools import product
from typing import NamedTuple

import torch
from diffusers.models.attention_processor import AttnProcessor2_0
from diffusers.models.unets.unet_2d_condition import UNet2DConditionModel
from torch import Tensor, nn

from lesionforge.core.context import Context, Precision
from lesionforge.kernels.map_leakage.benchmark import by_sdpa, disc
from lesionforge.kernels.measuring import BEST_TORCH, REFERENCE_METHOD, Case, Contender
from lesionforge.plugins.didgen.guidance import LayoutGuide, MapRecorders
from lesionforge.plugins.didgen.layout import DiDGenLoss, LayoutLoss
from lesionforge.plugins.didgen.losses import cross_loss, on_grid
from lesionforge.plugins.stable_diffusion.attention import RecordedAttention

from .benchmark import Benchmark
from .memory_use import memory_use
from .released_guidance import ReleasedGuidance
from .sampling import root_mean_square

Pair = tuple[Tensor, Tensor]
RATE, GUIDANCE_SCALE, TIMESTEP, WORDS = 20.0, 7.5, 501, 77
LESION_SHARE = 0.25
CPU_LATENTS = 64 * 64
"""Latents of a batch up to which a CPU is given the reference method."""
CPU_BUDGET_S = 30.0
# Of the move and of the noise, root mean square. The loss's softmax of 100 times the probabilities magnifies rounding.
TOLERANCES: dict[Precision, float] = {"fp32": 1e-3, "bf16": 2e-1}


class Topology(NamedTuple):
    """Channels and heads of the U-Net's four levels, width of the text, groups of its normalisation."""

    channels: tuple[int, ...]
    heads: tuple[int, ...]
    text: int
    groups: int


SD21_BASE = Topology((320, 640, 1280, 1280), (5, 10, 20, 20), 1024, 32)
SMALL = Topology((16, 32, 32, 32), (2, 4, 4, 4), 32, 8)


class Step(NamedTuple):
    """Edge of the latents, images, precision, U-Net."""

    latents: int
    batch: int
    precision: Precision
    topology: Topology = SD21_BASE


class Inputs(NamedTuple):
    """Latents (B, 4, h, w), encoded empty and own prompts (2, B, 77, d), places (B, 3), masks (B, 1, 8 h, 8 w)."""

    latents: Tensor
    states: Tensor
    tokens: Tensor
    masks: Tensor


def guided_step_case(shape: Step, device: str) -> Case:
    """All contenders have equal weights, in bf16 rounded; the truth is the reference method in float32, unrounded."""
    inputs = inputs_of(shape, device)
    context = Context(torch.device(device), shape.precision)
    plain = random_unet(shape.topology, shape.precision, device)
    ours = channels_last(shape.topology, shape.precision, device)
    tolerance = TOLERANCES[shape.precision]
    released = Contender(
        "released", by_released_code(plain, inputs, context), "maps written out, pixel loop, image by image",
        tolerance, REFERENCE_METHOD,
    )  # fmt: skip
    contenders = (
        Contender(
            "SDPA rows", by_guide(ours, inputs, context, SDPALoss()), "truncated pass, fused attention of the rows",
            tolerance, BEST_TORCH,
        ),
        Contender(
            "lesionforge", by_guide(ours, inputs, context, DiDGenLoss("reference")), "truncated pass, kernels",
            tolerance, automatic=True,
        ),
    )  # fmt: skip
    two_sided = Contender(
        "two-sided", by_guide(ours, inputs, context, DiDGenLoss()), "lesionforge, the paper's loss", torch.inf
    )
    whole = device != "cpu" or shape.batch * shape.latents**2 <= CPU_LATENTS
    if whole:
        contenders = (released, *contenders, two_sided)
    label = f"{shape.batch} x 4x{shape.latents}x{shape.latents}, {shape.precision}"
    truth = partial(exact_result, shape._replace(batch=shape.batch if whole else 1, precision="fp32"), device)
    memory = partial(memory_use, besides=[*plain.parameters(), *ours.parameters()])
    return Case("guided_step", label, contenders, truth, device, larger_difference, memory)


@lru_cache
def exact_result(shape: Step, device: str) -> Pair:
    """What the reference method makes in float32, which both precisions are held against."""
    context = Context(torch.device(device), "fp32")
    return by_released_code(random_unet(shape.topology, "fp32", device), inputs_of(shape, device), context)()


def inputs_of(shape: Step, device: str) -> Inputs:
    """Random latents and prompts, those of an image the same in any batch; a disc covers a quarter of each mask."""
    latents, states = [], []
    for case in range(shape.batch):
        rng = torch.Generator().manual_seed(1000 * case + shape.latents)
        latents.append(torch.randn(4, shape.latents, shape.latents, generator=rng))
        states.append(torch.randn(2, WORDS, shape.topology.text, generator=rng))
    size = 8 * shape.latents
    masks = disc(size * size, LESION_SHARE).view(1, 1, size, size).float().repeat(shape.batch, 1, 1, 1)
    tokens = torch.tensor([[4 + case, 6 + case, WORDS - 1] for case in range(shape.batch)])
    stacked = torch.stack(latents), torch.stack(states, dim=1), tokens, masks
    return Inputs(*(tensor.to(device) for tensor in stacked))


def by_released_code(unet: UNet2DConditionModel, inputs: Inputs, context: Context) -> Callable[[], Pair]:
    @torch.no_grad()
    def run() -> Pair:
        guidance = ReleasedGuidance(unet, rate=RATE)
        with context.autocast():
            return guidance.step(
                inputs.latents, TIMESTEP, inputs.states, inputs.tokens, inputs.masks, classifier_free_noise
            )

    return run


def by_guide(unet: UNet2DConditionModel, inputs: Inputs, context: Context, loss: LayoutLoss) -> Callable[[], Pair]:
    recorders = MapRecorders(unet)

    @torch.no_grad()
    def run() -> Pair:
        guide = LayoutGuide(
            unet, inputs.states[1], inputs.tokens, recorders=recorders, reading_step=1, tau=4, masks=inputs.masks,
            loss=loss, rates=[RATE],
        )  # fmt: skip
        with context.autocast():
            moved = guide(inputs.latents, 0, TIMESTEP)
            return moved - inputs.latents, classifier_free_noise(unet, moved, inputs.states)

    return run


class SDPALoss:
    """The released code's loss in plain torch: fused attention of the lesion's rows, case by case."""

    uses_self = True

    def __call__(
        self, cross: RecordedAttention, own: RecordedAttention | None, tokens: Tensor, masks: Tensor
    ) -> Tensor:
        assert own is not None
        query, key = own.query, own.key
        lesions = on_grid(masks, query.shape[2], "bilinear")[..., 0] > 0.5
        leaked = [
            by_sdpa(query[case : case + 1], key[case : case + 1], lesion, False) for case, lesion in enumerate(lesions)
        ]
        return cross_loss(cross, tokens, masks, compat="reference") + torch.stack(leaked)


def classifier_free_noise(unet: UNet2DConditionModel, latents: Tensor, states: Tensor) -> Tensor:
    """Both branches in one batch; states (2, B, 77, d)."""
    both = unet(torch.cat((latents, latents)), TIMESTEP, states.flatten(0, 1), return_dict=False)[0].float()
    unconditional, conditional = both.chunk(2)
    return unconditional + GUIDANCE_SCALE * (conditional - unconditional)


@lru_cache(maxsize=2)  # float32 for the truth, and another precision
def random_unet(topology: Topology, precision: Precision, device: str) -> UNet2DConditionModel:
    """Frozen, with attention that is not flat; in bf16 the weights of linear layers and convolutions are rounded."""
    if precision == "bf16":
        unet = copy.deepcopy(random_unet(topology, "fp32", device))
        for layer in unet.modules():
            if isinstance(layer, nn.Linear | nn.Conv2d):
                layer.to(torch.bfloat16)
        return unet
    with torch.random.fork_rng(devices=[]), torch.no_grad():
        torch.manual_seed(0)
        unet = UNet2DConditionModel(
            block_out_channels=topology.channels,
            attention_head_dim=topology.heads,  # type: ignore[arg-type]
            cross_attention_dim=topology.text,
            norm_num_groups=topology.groups,
            use_linear_projection=True,
        )
        for name, parameter in unet.named_parameters():
            if name.endswith("to_q.weight"):
                parameter *= 6
    return unet.requires_grad_(False).eval().to(device)  # type: ignore[return-value]


@lru_cache(maxsize=1)
def channels_last(topology: Topology, precision: Precision, device: str) -> UNet2DConditionModel:
    """The same network in the other layout; weights that have no layout are shared."""
    unet = random_unet(topology, precision, device)
    shared = {id(parameter): parameter for parameter in unet.parameters() if parameter.ndim != 4}
    made = copy.deepcopy(unet, shared)  # type: ignore[arg-type]
    made.set_attn_processor(AttnProcessor2_0())
    return made.to(memory_format=torch.channels_last)  # type: ignore[call-overload]


def larger_difference(made: Pair, truth: Pair) -> float:
    """Of the move and of the noise, of the images that the truth has; NaN where either is."""
    pairs = ((one[: len(other)], other) for one, other in zip(made, truth, strict=True))
    return float(torch.tensor([root_mean_square(one, other) for one, other in pairs]).max())


SHAPES = tuple(Step(edge, batch, precision) for precision, edge, batch in product(TOLERANCES, (32, 64, 96), (1, 4)))
# What two cores measure in about twelve minutes, an estimate from one of them.
ON_CPU = (
    Step(32, 1, "fp32"),
    Step(32, 4, "fp32"),
    Step(64, 1, "fp32"),
    Step(64, 1, "bf16"),
    Step(64, 4, "bf16"),
)
BENCHMARK = Benchmark(
    "guided_step",
    "a layout-guided step of DiDGen, topology of Stable Diffusion 2.1 base",
    ON_CPU,
    (Step(16, 2, "fp32", SMALL), Step(16, 2, "bf16", SMALL)),
    guided_step_case,
    on_gpu=tuple(shape for shape in SHAPES if shape not in ON_CPU),
    threads=(2,),
    budget_s=CPU_BUDGET_S,
    aim="in float32 on a CPU 2.7x the reference method; on a GPU 1.5x, and 2.2 times the batch in the same memory",
)
