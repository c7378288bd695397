"""Generator didgen: cases that are their own, every setting, a compiled U-Net, errors."""

from __future__ import annotations

import pytest
import torch

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, ConfigError, PluginError
from lesionforge.kernels import seeded_normal, stream_of
from lesionforge.plugins.didgen.placeholders import PREFIX
from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base
from lesionforge.testing import assert_contract, disc_dataset

from .conftest import discs

CPU = torch.device("cpu")
SETTINGS = "cross_factor=2, self_factor=1, num_inference_steps=4"


def opened(model, settings: str = "", *, data=None, precision: str = "fp32"):
    chain = lf.Chain.parse(f"didgen(checkpoint='{model}', {SETTINGS}{settings})")
    return chain.open(device="cpu", precision=precision, data=data)[0]


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
            patch.setattr(generation, "sample_cases", lambda *given, **settings: seeded_normal([1], (4, 8, 8)))
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


def test_terms_of_didgens_loss_are_no_settings_of_another(tiny_model):
    with pytest.raises(ConfigError, match="parts of didgen's loss, not of zest-guide"):
        opened(tiny_model, ", layout_loss='zest-guide', two_sided=false")


def test_the_guide_knows_where_each_prompt_ends(tiny_model, monkeypatch):
    from lesionforge.plugins.didgen import generation

    given = []
    original = generation.LayoutGuide.__init__

    def init(self, unet, states, tokens, **settings):
        given.append(tokens.tolist())
        original(self, unet, states, tokens, **settings)

    monkeypatch.setattr(generation.LayoutGuide, "__init__", init)
    long = f"{PREFIX} {'dark ' * 80}"
    with pytest.warns(UserWarning, match="1 of 3 prompts exceed"):
        opened(tiny_model)(lf.Batch.blank(3).with_columns(prompts=[None, f"{PREFIX} A dark lesion.", long]))
    assert given == [[[4, 6, 8], [4, 6, 13], [4, 6, 76]]]


def test_a_compiled_unet_is_guided_and_read_as_it_is(tiny_model, monkeypatch):
    """By backend ``eager``, since inductor takes minutes for a U-Net. One graph serves all batches of a size."""
    plain = opened(tiny_model, ", guided_share=0.25")(discs(2))
    backends = []
    original = StableDiffusionBase.compiled
    monkeypatch.setattr(
        StableDiffusionBase, "compiled", lambda base: backends.append("eager") or original(base, "eager")
    )
    torch._dynamo.reset()
    torch._dynamo.utils.counters.clear()
    stage = opened(tiny_model, ", guided_share=0.25, compile=true")
    compiled, graphs = stage(discs(2)), torch._dynamo.utils.counters["stats"]["unique_graphs"]
    assert backends and graphs == 1
    again = stage(discs(2))
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] == graphs
    assert torch.equal(again.images, compiled.images)
    torch.testing.assert_close(compiled.images, plain.images, rtol=0, atol=1e-4)
    torch.testing.assert_close(compiled.soft_masks, plain.soft_masks, rtol=0, atol=1e-3)
    torch._dynamo.reset()


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
