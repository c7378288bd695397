"""Layout guidance by itself: down the gradient of the equations, no map kept, passes that end early."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from lesionforge.kernels import seeded_normal
from lesionforge.plugins.didgen.guidance import LayoutGuide, MapRecorders, guidance_rates
from lesionforge.plugins.didgen.layout import DiDGenLoss, RefocusingLoss, ZestLoss
from lesionforge.plugins.didgen.placeholders import PREFIX
from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base
from lesionforge.plugins.stable_diffusion.prompts import encode_prompts

from . import literal
from .conftest import discs


def layout_guide(base: StableDiffusionBase, states: Tensor, *, reading_step: int = 99, **settings) -> LayoutGuide:
    """For prompts that are the prefix alone."""
    recorders = MapRecorders(base.unet, cross_factor=2, self_factor=1)
    tokens = torch.tensor([[4, 6, 8]] * len(states))
    return LayoutGuide(base.unet, states, tokens, recorders=recorders, reading_step=reading_step, tau=4, **settings)


def literal_losses(base: StableDiffusionBase, latents: Tensor, states: Tensor, timestep: int, masks: Tensor) -> Tensor:
    """L_CA + L_SA (B,) by hooks on the whole U-Net, every map written out."""
    maps: dict[tuple[str, int], list[tuple[Tensor, Tensor]]] = {}

    def keep(module, arguments, keywords) -> None:
        pixels = arguments[0] if arguments else keywords["hidden_states"]
        text = keywords.get("encoder_hidden_states")
        split = lambda x: x.unflatten(2, (module.heads, -1)).transpose(1, 2)  # noqa: E731
        pair = split(module.to_q(pixels)), split(module.to_k(pixels if text is None else text))
        maps.setdefault(("self" if text is None else "cross", pixels.shape[1]), []).append(pair)

    attentions = [module for name, module in base.unet.named_modules() if name.endswith(("attn1", "attn2"))]
    handles = [module.register_forward_pre_hook(keep, with_kwargs=True) for module in attentions]
    base.unet(latents, timestep, states)
    for handle in handles:
        handle.remove()
    cross, own = (
        literal.mean_map(*(torch.cat(side, dim=1) for side in zip(*maps[key], strict=True)))
        for key in (("cross", 16), ("self", 64))
    )
    return torch.stack([
        literal.region_loss(literal.blurred(cross[i]), [4, 6], masks[i, 0]) + literal.self_loss(own[i], masks[i, 0])
        for i in range(len(masks))
    ])  # fmt: skip


def test_a_guided_step_goes_down_the_gradient_of_the_equations(tiny_model):
    base, masks = load_base(tiny_model), discs(2).masks
    base.unet.double(), base.text_encoder.double()
    states = base.text_encoder(encode_prompts(base, [PREFIX] * 2).tokens).last_hidden_state.detach()
    latents = seeded_normal([1, 2], (4, 8, 8), dtype=torch.float64)
    guide = layout_guide(base, states, masks=masks.double(), loss=DiDGenLoss(), rates=[20.0])
    moved = latents.clone().requires_grad_()
    losses = literal_losses(base, moved, states, 500, masks.double())
    (gradient,) = torch.autograd.grad(losses.sum(), moved)
    torch.testing.assert_close(guide(latents, 0, 500), latents - 20 * gradient, rtol=1e-6, atol=1e-8)
    torch.testing.assert_close(guide.losses[0].double(), losses.detach(), rtol=1e-6, atol=1e-6)
    assert torch.equal(guide(latents, 1, 480), latents)


@pytest.mark.parametrize("loss", [DiDGenLoss(), DiDGenLoss("reference"), ZestLoss(), RefocusingLoss()])
def test_guidance_lowers_its_loss(tiny_model, loss):
    base = load_base(tiny_model)
    base.unet.requires_grad_(False)
    states = encode_prompts(base, [PREFIX] * 2).states.detach()
    guide = layout_guide(base, states, masks=discs(2).masks, loss=loss, rates=[2.0] * 12)
    latents = seeded_normal([1, 2], (4, 8, 8))
    for step in range(12):
        latents = guide(latents, step, 500)
    assert bool((guide.losses[-1] < guide.losses[0]).all())


class Materialising:
    """DiDGen's L_SA by the maps themselves: what must not happen, to show that the test would see it."""

    uses_self = True

    def __call__(self, cross, own, tokens, masks):
        return literal.mean_map(own.query, own.key).square().sum((1, 2))


def saved_in_a_guided_step(base: StableDiffusionBase, count: int, loss) -> list[torch.Size]:
    """Shapes of all that autograd keeps, for latents of 24 x 24: no layer is as wide as there are tokens."""
    states = encode_prompts(base, [PREFIX] * count).states.detach()
    guide = layout_guide(base, states, masks=discs(count, size=96).masks, loss=loss, rates=[1.0])
    shapes: list[torch.Size] = []

    def pack(tensor: Tensor) -> Tensor:
        shapes.append(tensor.shape)
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        guide(seeded_normal(range(count), (4, 24, 24)), 0, 500)
    return shapes


def test_guidance_keeps_no_map_and_grows_with_the_batch(tiny_model):
    base = load_base(tiny_model)
    base.unet.requires_grad_(False)

    def maps(shapes: list[torch.Size]) -> list[torch.Size]:
        return [shape for shape in shapes if shape[-2:] in ((576, 576), (144, 144))]

    saved = [saved_in_a_guided_step(base, count, DiDGenLoss()) for count in (1, 2, 3)]
    assert not maps(saved[1]) and maps(saved_in_a_guided_step(base, 1, Materialising()))
    one, two, three = (sum(shape.numel() for shape in shapes) for shapes in saved)
    assert three - two == two - one > 0


@pytest.mark.parametrize(
    ("loss", "runs_self"), [(ZestLoss(), False), (DiDGenLoss(use_self=False), False), (DiDGenLoss(), True)]
)
def test_the_guiding_pass_ends_with_what_its_loss_reads(tiny_model, loss, runs_self):
    """Self-attention at the latents' resolution comes after cross-attention at half of it."""
    base = load_base(tiny_model)
    states = encode_prompts(base, [PREFIX]).states.detach()
    guide = layout_guide(base, states, masks=discs(1).masks, loss=loss, rates=[1.0])
    reached = []
    base.unet.up_blocks[-1].register_forward_pre_hook(lambda *given: reached.append(True))
    guide(seeded_normal([1], (4, 8, 8)), 0, 500)
    assert bool(reached) is runs_self


def test_soft_masks_come_from_the_last_step(tiny_model):
    """The maps are those of the prompt's own branch on the latents that the last step begins with."""
    base = load_base(tiny_model)
    states = encode_prompts(base, [PREFIX]).states.detach()
    guide = layout_guide(base, states, reading_step=2)
    latents = seeded_normal([5], (4, 8, 8))
    with torch.no_grad():
        for step in range(2):
            assert guide(latents, step, 100) is latents and guide.soft_masks is None
        guide(latents, 2, 1)
    assert guide.soft_masks is not None and guide.soft_masks.shape == (1, 1, 8, 8)
    assert float(guide.soft_masks.min()) == 0 and float(guide.soft_masks.max()) == 1


def test_losses_are_in_full_precision_under_autocast(tiny_model):
    base = load_base(tiny_model)
    base.unet.requires_grad_(False)
    seen = []

    class Watched(DiDGenLoss):
        def __call__(self, cross, own, tokens, masks):
            seen.append((torch.is_autocast_enabled("cpu"), cross.query.dtype))
            return super().__call__(cross, own, tokens, masks)

    states = encode_prompts(base, [PREFIX]).states.detach()
    guide = layout_guide(base, states, masks=discs(1).masks, loss=Watched(), rates=[1.0])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guide(seeded_normal([1], (4, 8, 8)), 0, 500)
    assert seen == [(False, torch.bfloat16)] and guide.losses[0].dtype == torch.float32


def test_rates_are_constant_in_the_paper_and_fall_in_the_released_code():
    assert guidance_rates(20, 0.5, 50) == [20] * 25
    falling = guidance_rates(20, 0.5, 50, compat="reference", timesteps=51)  # PNDM's; the line ends with the last
    assert len(falling) == 25 and falling[0] == 20 and falling[-1] == pytest.approx(20 * 0.76**0.5)
    assert guidance_rates(20, 1, 5, compat="reference")[-1] == pytest.approx(20 * 0.5**0.5)
    assert [len(guidance_rates(1, share, 100)) for share in (0.29, 0.57, 0.58)] == [29, 57, 58]
