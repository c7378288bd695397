"""Generator didgen: layout guidance against the equations, cases that are their own, errors."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, ConfigError, PluginError
from lesionforge.kernels import seeded_normal, stream_of
from lesionforge.plugins.didgen.guidance import LayoutGuide, MapPlaces, guidance_rates
from lesionforge.plugins.didgen.layout import DiDGenLoss, RefocusingLoss, ZestLoss
from lesionforge.plugins.didgen.placeholders import PREFIX
from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base
from lesionforge.plugins.stable_diffusion.prompts import encode_prompts
from lesionforge.testing import assert_contract, disc_dataset

from . import literal

CPU = torch.device("cpu")
PLACES = MapPlaces(cross=2, own=1)
SETTINGS = "cross_factor=2, self_factor=1, num_inference_steps=4"


def opened(model, settings: str = "", *, data=None, precision: str = "fp32"):
    chain = lf.Chain.parse(f"didgen(checkpoint='{model}', {SETTINGS}{settings})")
    return chain.open(device="cpu", precision=precision, data=data)[0]


def discs(count: int, size: int = 32) -> lf.Batch:
    return lf.Batch.blank(count).with_columns(masks=disc_dataset(count, size=size).fetch(range(count)).masks)


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
    guide = LayoutGuide(
        base.unet, states, torch.tensor([[4, 6]] * 2), reading_step=8, places=PLACES, tau=4, masks=masks.double(),
        loss=DiDGenLoss(), rates=[20.0],
    )  # fmt: skip
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
    guide = LayoutGuide(
        base.unet, states, torch.tensor([[4, 6]] * 2), reading_step=98, places=PLACES, tau=4, masks=discs(2).masks,
        loss=loss, rates=[2.0] * 12,
    )  # fmt: skip
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
    guide = LayoutGuide(
        base.unet, states, torch.tensor([[4, 6]] * count), reading_step=8, places=PLACES, tau=4,
        masks=discs(count, size=96).masks, loss=loss, rates=[1.0],
    )  # fmt: skip
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
    guide = LayoutGuide(
        base.unet, states, torch.tensor([[4, 6]]), reading_step=8, places=PLACES, tau=4, masks=discs(1).masks,
        loss=loss, rates=[1.0],
    )  # fmt: skip
    reached = []
    base.unet.up_blocks[-1].register_forward_pre_hook(lambda *given: reached.append(True))
    guide(seeded_normal([1], (4, 8, 8)), 0, 500)
    assert bool(reached) is runs_self


def test_soft_masks_come_from_the_last_step(tiny_model):
    """The maps are those of the prompt's own branch on the latents that the last step begins with."""
    base = load_base(tiny_model)
    states = encode_prompts(base, [PREFIX]).states.detach()
    guide = LayoutGuide(base.unet, states, torch.tensor([[4, 6]]), reading_step=2, places=PLACES, tau=4)
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

    guide = LayoutGuide(
        base.unet, encode_prompts(base, [PREFIX]).states.detach(), torch.tensor([[4, 6]]), reading_step=8,
        places=PLACES, tau=4, masks=discs(1).masks, loss=Watched(), rates=[1.0],
    )  # fmt: skip
    with torch.autocast("cpu", dtype=torch.bfloat16):
        guide(seeded_normal([1], (4, 8, 8)), 0, 500)
    assert seen == [(False, torch.bfloat16)] and guide.losses[0].dtype == torch.float32


@pytest.mark.parametrize(
    "changed",
    [
        "layout_loss='zest-guide'", "layout_loss='attention-refocusing'", "layout_rate=3", "guided_share=0.25",
        "use_cross=false", "use_self=false", "two_sided=false", "tau=1", "compat='reference'", "guidance_scale=2",
        "scheduler='sde-dpm-solver++'", "scheduler='pndm'", "num_inference_steps=6", "cross_factor=1", "self_factor=2",
    ],
)  # fmt: skip
def test_every_setting_changes_what_is_drawn(tiny_model, changed):
    key = changed.partition("=")[0]
    kept = ", ".join(part for part in SETTINGS.split(", ") if not part.startswith(f"{key}="))
    chain = lf.Chain.parse(f"didgen(checkpoint='{tiny_model}', {kept}, {changed})")
    plain, other = opened(tiny_model)(discs(1)), chain.open(device="cpu", precision="fp32")[0](discs(1))
    same_images = torch.equal(plain.images, other.images)
    same_maps = plain.soft_masks.shape == other.soft_masks.shape and torch.equal(plain.soft_masks, other.soft_masks)
    assert not (same_images and same_maps)
    assert same_images is (key == "tau")


def test_maps_are_read_where_the_released_code_reads_them(tiny_model, monkeypatch):
    """With PNDM's 51 timesteps for 50 steps: paper at i = 50, released code at i = 49, t = 21."""
    from lesionforge.plugins.didgen import generation

    steps = {}
    for compat in ("paper", "reference"):
        with monkeypatch.context() as patch:
            patch.setattr(generation, "sample", lambda *given, **settings: seeded_normal([1], (4, 8, 8)))
            made = []
            original = generation.LayoutGuide.__init__

            def init(self, *given, original=original, made=made, **settings):
                made.append(settings["reading_step"])
                original(self, *given, **settings)

            patch.setattr(generation.LayoutGuide, "__init__", init)
            settings = f"scheduler='pndm', num_inference_steps=50, compat='{compat}', cross_factor=2, self_factor=1"
            stage = lf.Chain.parse(f"didgen(checkpoint='{tiny_model}', {settings})").open(device="cpu")[0]
            stage(lf.Batch.blank(1))
            steps[compat] = made[0]
    assert steps == {"paper": 50, "reference": 49}


def test_rates_are_constant_in_the_paper_and_fall_in_the_released_code():
    assert guidance_rates(20, 0.5, 50) == [20] * 25
    falling = guidance_rates(20, 0.5, 50, compat="reference")
    assert len(falling) == 25 and falling[0] == 20 and falling[-1] == pytest.approx(20 * 0.5**0.5)
    assert falling[12] == pytest.approx(20 * 0.75**0.5)
    assert [len(guidance_rates(1, share, 100)) for share in (0.29, 0.57, 0.58)] == [29, 57, 58]


def test_the_contract_holds_with_and_without_masks(tiny_model):
    assert_contract(f"didgen(checkpoint='{tiny_model}', {SETTINGS})", role="generator")
    batch = discs(4)
    stage = opened(tiny_model, ", layout_rate=2")
    together, reversed_order = stage(batch), stage(batch.select([3, 2, 1, 0])).select([3, 2, 1, 0])
    assert torch.equal(together.images, reversed_order.images)
    assert torch.equal(together.soft_masks, reversed_order.soft_masks)
    alone = stage(batch.select([1]))
    torch.testing.assert_close(together.images[1:2], alone.images, rtol=0, atol=2e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_a_chain_from_real_masks_to_masks_of_attention(tiny_model, precision):
    chain = f"real-masks(size=32) | didgen(checkpoint='{tiny_model}', {SETTINGS}) | attention-mask | mask-quality"
    batch = lf.Batch.blank(3)
    for stage in lf.Chain.parse(chain).open(data=disc_dataset(), device="cpu", precision=precision):
        batch = stage(batch)
    assert batch.images.shape == (3, 3, 32, 32) and batch.masks.shape == (3, 1, 32, 32)
    assert batch.prompts == (PREFIX,) * 3
    assert {"layout_loss", "mask_uncertainty", "condition_iou", "mask_area"} <= set(batch.scores)
    assert all("condition_sha256" in facts for facts in batch.provenance)


def test_text_alone_is_not_guided(tiny_model):
    unguided, guided = opened(tiny_model, ", guided_share=0"), opened(tiny_model)
    batch = lf.Batch.blank(2).with_columns(prompts=[PREFIX, f"{PREFIX} A dark lesion."])
    assert torch.equal(unguided(batch).images, guided(batch).images)
    assert "layout_loss" not in guided(batch).scores
    with_masks = batch.with_columns(masks=discs(2).masks)
    assert not torch.equal(guided(with_masks).images, guided(batch).images)


def test_start_noise_is_the_cases_own(tiny_model, monkeypatch):
    from lesionforge.plugins.didgen import generation

    seen = []
    original = generation.LayoutGuide.__call__

    def spy(self, latents, step, timestep):
        seen.append(latents)
        return original(self, latents, step, timestep)

    monkeypatch.setattr(generation.LayoutGuide, "__call__", spy)
    batch = lf.Batch.blank(2)
    opened(tiny_model)(batch)
    assert torch.equal(seen[0], seeded_normal(batch.seeds, (4, 8, 8), stream=stream_of("didgen")))


def test_masks_of_another_size_say_what_to_change(tiny_model):
    with pytest.raises(PluginError, match=r"masks of 16 x 16 pixels for images of 32 x 32; give .* size=32"):
        opened(tiny_model)(discs(2, size=16))


def test_an_empty_mask_is_named(tiny_model):
    batch = discs(2)
    masks = batch.masks.clone()
    masks[1] = 0
    with pytest.raises(PluginError, match="the mask of case-00000001 is empty"):
        opened(tiny_model)(batch.with_columns(masks=masks))


def test_a_prompt_without_placeholders_is_named(tiny_model):
    with pytest.raises(lf.LesionforgeError, match=r"prompt 'a lesion' lacks <lesion>"):
        opened(tiny_model)(lf.Batch.blank(1).with_columns(prompts=["a lesion"]))


def test_a_base_without_placeholders_is_refused(tiny_base):
    with pytest.raises(CheckpointError, match="does not know the token <lesion>"):
        opened(tiny_base)


def test_a_resolution_that_the_base_has_not_is_refused(tiny_model):
    with pytest.raises(ConfigError, match=r"no self-attention at 3.*cross_factor and self_factor"):
        lf.Chain.parse(f"didgen(checkpoint='{tiny_model}', self_factor=3)").open(device="cpu")


def test_a_size_between_latents_is_refused_before_any_case(tiny_model):
    with pytest.raises(ConfigError, match="size = 30 is no multiple of 4"):
        opened(tiny_model, ", size=30")


def test_guidance_by_no_term_is_refused(tiny_model):
    with pytest.raises(ConfigError, match="use_cross or use_self"):
        opened(tiny_model, ", use_cross=false, use_self=false")


def test_what_a_run_draws_is_made_again(tiny_model, tmp_path):
    chain = lf.Chain.parse(f"real-masks(size=32) | didgen(checkpoint='{tiny_model}', {SETTINGS}) | attention-mask")
    where = {"output": tmp_path / "run", "data": disc_dataset(), "device": "cpu", "precision": "fp32"}
    run = chain.run(count=3, batch_size=2, report=False, **where)
    assert run.regenerate("case-00000001").identical and run.verify().ok


def test_weights_rounded_once_keep_the_bits_of_autocast(tiny_model):
    from lesionforge.plugins.stable_diffusion.inference import ready_base

    context = Context(CPU, "bf16", "test")
    latents, states = seeded_normal([1], (4, 8, 8)), seeded_normal([1], (77, 32))
    with torch.no_grad(), context.autocast():
        ours = ready_base(tiny_model, context).unet(latents, 500, states, return_dict=False)[0]
        theirs = load_base(tiny_model).to(CPU).unet(latents, 500, states, return_dict=False)[0]
    assert torch.equal(ours, theirs)
