"""Generator promptcontrol: the base while the zero convolutions are shut, masks that matter, errors."""

from __future__ import annotations

import json
import shutil

import pytest
import torch
from diffusers.models.controlnets.controlnet import ControlNetModel

import lesionforge as lf
from lesionforge.core.context import Context
from lesionforge.core.errors import CheckpointError, PluginError
from lesionforge.plugins.promptcontrol.prompts import typed_prompt
from lesionforge.plugins.stable_diffusion.base import StableDiffusionBase, load_base
from lesionforge.plugins.stable_diffusion.inference import ready_base
from lesionforge.plugins.stable_diffusion.sampling import _predict, decode, sample
from lesionforge.plugins.stable_diffusion.tiny import tiny_stable_diffusion
from lesionforge.testing import disc_dataset


def expression(model, base, settings: str = "") -> str:
    return f"promptcontrol(checkpoint='{model}', base='{base}', num_inference_steps=3{settings})"


def opened(model, base, settings: str = "", *, precision: str = "fp32"):
    return lf.Chain.parse(expression(model, base, settings)).open(device="cpu", precision=precision)[0]


def discs(count: int, size: int = 32) -> lf.Batch:
    return lf.Batch.blank(count).with_columns(masks=disc_dataset(count, size=size).fetch(range(count)).masks)


@pytest.mark.parametrize("guidance_scale", [1.0, 7.5])
def test_shut_zero_convolutions_leave_the_bases_images_bit_for_bit(tiny_base, fresh_model, guidance_scale):
    batch = discs(3).with_columns(prompts=["a lesion", None, ""])
    made = opened(fresh_model, tiny_base, f", guidance_scale={guidance_scale}")(batch)
    context = Context(torch.device("cpu"), name="promptcontrol")
    base = ready_base(tiny_base, context)
    latents = sample(
        base, ["a lesion", "", ""], batch.seeds, context=context, steps=3, guidance_scale=guidance_scale
    )
    assert torch.equal(made.images, decode(base, latents, context=context))
    assert made.prompts == ("a lesion", "", "") and torch.equal(made.masks, batch.masks)


def test_open_ones_make_the_mask_matter_as_much_as_they_are_weighted(tiny_base, open_model):
    batch = discs(2)
    base, full = (opened(open_model, tiny_base, f", conditioning_scale={scale}") for scale in (0.0, 1.0))
    other = batch.with_columns(masks=batch.masks.flip(-1))
    assert torch.equal(base(batch).images, base(other).images)
    assert not torch.equal(full(batch).images, full(other).images)
    assert not torch.equal(full(batch).images, base(batch).images)


def test_both_branches_get_the_residuals_of_their_own_case(tiny_base, open_model):
    """The hook in the sampler, by hand: one step of the unguided process for one case."""
    base = load_base(tiny_base)
    network = ControlNetModel.from_pretrained(open_model / "controlnet").eval()
    latents, timestep = torch.randn(2, 4, 8, 8, generator=torch.Generator().manual_seed(0)), torch.tensor(500)
    masks = disc_dataset(2).fetch([0, 1]).masks.expand(-1, 3, -1, -1)
    states = torch.randn(2, 77, 32, generator=torch.Generator().manual_seed(1))
    seen = []

    def control(noisy, time, text):
        seen.append((noisy, text))
        return network(noisy, time, text, controlnet_cond=masks.repeat(len(noisy) // 2, 1, 1, 1), return_dict=False)

    with torch.no_grad():
        both = torch.cat((torch.zeros_like(states), states))
        guided = _predict(base, latents, timestep, both, 3.0, control)
        without, given = (
            base.unet(latents, timestep, text, down_block_additional_residuals=skips,
                      mid_block_additional_residual=middle, return_dict=False)[0]
            for text in (torch.zeros_like(states), states)
            for skips, middle in [network(latents, timestep, text, controlnet_cond=masks, return_dict=False)]
        )  # fmt: skip
    torch.testing.assert_close(guided, without + 3 * (given - without), rtol=1e-4, atol=1e-4)
    assert torch.equal(seen[0][0], torch.cat((latents, latents))) and torch.equal(seen[0][1], both)


def test_the_contract_holds_behind_masks(tiny_base, open_model):
    batch, stage = discs(4), opened(open_model, tiny_base)
    together = stage(batch)
    reversed_order = stage(batch.select([3, 2, 1, 0])).select([3, 2, 1, 0])
    assert torch.equal(together.images, reversed_order.images)
    assert torch.equal(together.images, stage(batch).images)
    torch.testing.assert_close(together.images[1:2], stage(batch.select([1])).images, rtol=0, atol=2e-4)


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_issues_chain_runs(tiny_base, open_model, precision):
    chain = f"lesion-masks(size=32) | derm-prompt-sampler | {expression(open_model, tiny_base)} | mask-quality"
    batch = lf.Batch.blank(2)
    for stage in lf.Chain.parse(chain).open(data=disc_dataset(), device="cpu", precision=precision):
        batch = stage(batch)
    assert batch.images.shape == (2, 3, 32, 32) and batch.masks.shape == (2, 1, 32, 32)
    assert all(batch.prompts) and "mask_area" in batch.scores


def test_what_a_run_draws_is_made_again(tiny_base, open_model, tmp_path):
    chain = lf.Chain.parse(f"real-masks(size=32) | {expression(open_model, tiny_base)}")
    where = {"output": tmp_path / "run", "data": disc_dataset(), "device": "cpu", "precision": "fp32"}
    run = chain.run(count=3, batch_size=2, report=False, **where)
    assert run.regenerate("case-00000001").identical and run.verify().ok


def test_prompts_begin_with_the_lesion_type():
    assert typed_prompt("A brown lesion.", "seborrheic_keratosis") == "seborrheic keratosis. A brown lesion."
    assert typed_prompt(None, "nevus") == "nevus." and typed_prompt("A lesion.", None) == "A lesion."
    assert typed_prompt(None, None) == "" == typed_prompt("", None)


def test_missing_masks_say_what_to_put_before(tiny_base, open_model):
    with pytest.raises(PluginError, match="stage promptcontrol needs masks"):
        opened(open_model, tiny_base)(lf.Batch.blank(1))


def test_masks_of_another_size_say_what_to_change(tiny_base, open_model):
    with pytest.raises(PluginError, match=r"masks of 16 x 16 pixels for images of 32 x 32; give .* size=32"):
        opened(open_model, tiny_base)(discs(2, size=16))


def test_masks_that_are_not_binary_are_an_error(tiny_base, open_model):
    batch = discs(1)
    with pytest.raises(PluginError, match="values other than 0 and 1"):
        opened(open_model, tiny_base)(batch.with_columns(masks=batch.masks * 0.7))


def test_a_missing_checkpoint_is_an_error(tiny_base, tmp_path):
    with pytest.raises(CheckpointError, match=r"no PromptControl checkpoint at .*none: promptcontrol.json is missing"):
        opened(tmp_path / "none", tiny_base)


def test_a_damaged_checkpoint_is_an_error(tiny_base, open_model, tmp_path):
    shutil.copytree(open_model, tmp_path / "cut")
    weights = tmp_path / "cut" / "controlnet" / "diffusion_pytorch_model.safetensors"
    weights.write_bytes(weights.read_bytes()[:1000])
    with pytest.raises(CheckpointError, match="cannot be used"):
        opened(tmp_path / "cut", tiny_base)
    (tmp_path / "cut" / "promptcontrol.json").write_text(json.dumps({"size": 32}))
    with pytest.raises(CheckpointError, match=r"cannot be used: .*base_sha256"):
        opened(tmp_path / "cut", tiny_base)


def test_another_base_is_refused(open_model, tmp_path):
    other = tiny_stable_diffusion(tmp_path / "other", seed=1, latent_size=8, downsampling=4)
    with pytest.raises(CheckpointError, match=r"was trained on another base .* set base to the one"):
        opened(open_model, other)


def test_the_unet_is_compiled_where_that_is_asked_for(tiny_base, open_model, monkeypatch):
    compiled = []
    monkeypatch.setattr(StableDiffusionBase, "compiled", lambda base: compiled.append(base) or base)
    images = opened(open_model, tiny_base)(discs(2)).images
    assert not compiled
    assert torch.equal(opened(open_model, tiny_base, ", compile=true")(discs(2)).images, images) and len(compiled) == 1
