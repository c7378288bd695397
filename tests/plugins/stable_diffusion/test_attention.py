from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import torch
from diffusers import UNet2DConditionModel
from diffusers.models.attention_processor import AttnProcessor, AttnProcessor2_0
from peft import LoraConfig, get_peft_model
from torch import Tensor, nn

from lesionforge.kernels import attention_leakage, attention_refinement, token_attention
from lesionforge.plugins.stable_diffusion.attention import record_attention
from lesionforge.plugins.stable_diffusion.attention_layers import attention_layers

TIME = 400
CHOSEN = {"self_attention": [2], "cross_attention": [4]}


def draws(seed: int, *shape: int) -> Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(seed))


def inputs(batch: int = 2, size: int = 16, dtype: torch.dtype = torch.float32) -> tuple[Tensor, Tensor]:
    return draws(0, batch, 4, size, size).to(dtype), draws(1, batch, 77, 32).to(dtype)


@pytest.fixture
def unet(tiny_base) -> UNet2DConditionModel:
    return tiny_base().unet


@contextmanager
def hooked(unet: nn.Module) -> Iterator[dict[str, Tensor]]:
    """Collect what to_q and to_k of every attention layer return."""
    seen: dict[str, Tensor] = {}

    def note(name: str) -> Callable:
        return lambda module, inputs, output: seen.update({name: output})

    handles = [
        module.register_forward_hook(note(name))
        for name, module in unet.named_modules()
        if name.endswith((".to_q", ".to_k"))
    ]
    try:
        yield seen
    finally:
        for handle in handles:
            handle.remove()


def literal_map(seen: dict[str, Tensor], unet: nn.Module, kind: str, factor: int) -> Tensor:
    """Mean over layers and heads of softmax(Q K^T / sqrt(d)), every map in full: (B, N, S)."""
    maps = []
    for layer in attention_layers(unet):
        if (layer.kind, layer.factor) == (kind, factor):
            query, key = (
                seen[f"{layer.name}.{name}"].unflatten(2, (layer.module.heads, -1)).transpose(1, 2)
                for name in ("to_q", "to_k")
            )
            maps.append((query @ key.mT / query.shape[-1] ** 0.5).softmax(-1))
    return torch.cat(maps, dim=1).mean(1)


@pytest.mark.parametrize("version", [1, 2])
def test_the_operators_get_what_the_literal_maps_say(tiny_base, version):
    unet = tiny_base(version).unet.double()
    latents, states = inputs(dtype=torch.float64)
    latents.requires_grad_()
    with hooked(unet) as seen, record_attention(unet, **CHOSEN) as recording:
        unet(latents, TIME, states)
    own, text = recording.self_attention(2), recording.cross_attention(4)
    pixels, tokens = literal_map(seen, unet, "self", 2), literal_map(seen, unet, "cross", 4)

    torch.testing.assert_close(token_attention(text.query, text.key, [3, 5]), tokens[..., [3, 5]])
    values = draws(2, 2, 64, 1).double()
    refined = attention_refinement(own.query, own.key, values, steps=4)
    torch.testing.assert_close(refined, torch.linalg.matrix_power(pixels, 4) @ values)

    mask = draws(3, 2, 64) > 0.5
    leakage = attention_leakage(own.query, own.key, mask)
    rows = (pixels @ (~mask).double()[..., None])[..., 0] / (~mask).sum(1, keepdim=True)
    expected = (rows * mask).sum(1) / mask.sum(1)
    torch.testing.assert_close(leakage, expected)
    (actual,) = torch.autograd.grad(leakage.sum(), latents, retain_graph=True)
    torch.testing.assert_close(actual, torch.autograd.grad(expected.sum(), latents)[0])


@pytest.mark.parametrize("version", [1, 2])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_the_output_keeps_its_bits(tiny_base, version, precision):
    unet = tiny_base(version).unet
    latents, states = inputs(3)
    assert all(type(processor) is AttnProcessor2_0 for processor in unet.attn_processors.values())
    everything = {"self_attention": [1, 2, 4, 8], "cross_attention": [1, 2, 4, 8]}
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16, enabled=precision == "bf16"):
        expected = unet(latents, TIME, states).sample
        with record_attention(unet, **everything) as recording:
            actual = unet(latents, TIME, states).sample
    assert torch.equal(actual, expected)
    dtype = torch.bfloat16 if precision == "bf16" else torch.float32
    assert recording.self_attention(1).query.dtype == recording.cross_attention(8).key.dtype == dtype


def test_layers_of_every_resolution_are_those_of_stable_diffusion(unet):
    """Two on the way down, three up, one in the middle; layers x heads of one resolution are stacked."""
    layers = attention_layers(unet)
    counts = {
        factor: sum((layer.kind, layer.factor) == ("self", factor) for layer in layers) for factor in (1, 2, 4, 8)
    }
    assert counts == {1: 5, 2: 5, 4: 5, 8: 1} and len(layers) == 32
    with record_attention(unet, self_attention=[1, 2, 4, 8], cross_attention=[2]) as recording:
        unet(*inputs()[:1], TIME, inputs()[1])
    shapes = {factor: tuple(recording.self_attention(factor).query.shape) for factor in (1, 2, 4, 8)}
    assert shapes == {1: (2, 10, 256, 8), 2: (2, 20, 64, 8), 4: (2, 20, 16, 8), 8: (2, 4, 4, 8)}
    assert recording.cross_attention().key.shape == (2, 20, 77, 8)


def test_the_order_of_layers_is_the_order_of_the_pass(unet):
    with hooked(unet) as seen:
        unet(*inputs()[:1], TIME, inputs()[1])
    ran = [name.removesuffix(".to_q") for name in seen if name.endswith(".to_q")]
    assert [layer.name for layer in attention_layers(unet)] == ran


def test_only_chosen_layers_are_touched_and_all_are_put_back(unet):
    with record_attention(unet, self_attention=["up_blocks.2"], cross_attention=["mid_block"]) as recording:
        changed = {name for name, each in unet.attn_processors.items() if type(each) is not AttnProcessor2_0}
    attentions = [f"up_blocks.2.attentions.{number}.transformer_blocks.0.attn1" for number in range(3)]
    middle = "mid_block.attentions.0.transformer_blocks.0.attn2"
    assert changed == {f"{name}.processor" for name in (*attentions, middle)}
    assert [layer.name for layer in recording.layers] == [middle, *attentions]
    assert all(type(each) is AttnProcessor2_0 for each in unet.attn_processors.values())
    with pytest.raises(ZeroDivisionError), record_attention(unet, self_attention=["up_blocks.2"]):
        1 / 0  # noqa: B018
    assert all(type(each) is AttnProcessor2_0 for each in unet.attn_processors.values())


def test_layers_by_name_join_layers_by_resolution(unet):
    name = "down_blocks.0.attentions.1.transformer_blocks.0.attn2"
    recorder = record_attention(unet, cross_attention=[8, name])
    assert [layer.name for layer in recorder.layers] == [name, "mid_block.attentions.0.transformer_blocks.0.attn2"]


def test_both_branches_of_guidance_and_any_number_of_parts(unet):
    latents, states = inputs(6)
    with torch.no_grad(), record_attention(unet, **CHOSEN) as recording:
        unet(latents, TIME, states)
    maps = recording.cross_attention()
    assert torch.equal(torch.cat((maps.unconditional.query, maps.conditional.query)), maps.query)
    assert torch.equal(torch.cat([maps.branch(part, of=3).key for part in range(3)]), maps.key)
    assert maps.conditional.queries[0].untyped_storage().data_ptr() == maps.queries[0].untyped_storage().data_ptr()
    with pytest.raises(ValueError, match="a batch of 6 has no part 1 of 4"):
        maps.branch(1, of=4)
    with pytest.raises(ValueError, match="no part 2 of 2"):
        maps.branch(2)


def test_every_pass_replaces_the_one_before(unet):
    latents, states = inputs()
    with torch.no_grad(), record_attention(unet, **CHOSEN) as recording:
        unet(latents, TIME, states)
        first = recording.self_attention().query
        unet(2 * latents, TIME, states)
        assert not torch.equal(recording.self_attention().query, first)
        unet(latents, TIME, states)
    assert torch.equal(recording.self_attention().query, first)
    recording.clear()
    with pytest.raises(RuntimeError, match=r"down_blocks\.1.* was not recorded; run the U-Net inside"):
        recording.self_attention()


def test_a_recording_inside_another_takes_layers_over_and_passes_never_mix(unet):
    latents, states = inputs()
    outer = record_attention(unet, self_attention=[2], cross_attention=[4])
    inner = record_attention(unet, self_attention=["down_blocks.1", "up_blocks.2"], stop=True)
    with torch.no_grad(), outer:
        unet(latents, TIME, states)
        expected = outer.self_attention().query
        with inner:
            unet(2 * latents, TIME, states)
        assert not torch.equal(inner.self_attention().query, expected)
        with pytest.raises(RuntimeError, match="was not recorded"):
            outer.cross_attention()
        unet(latents, TIME, states)
    assert torch.equal(outer.self_attention().query, expected) and len(outer.cross_attention().queries) == 5
    assert all(type(each) is AttnProcessor2_0 for each in unet.attn_processors.values())


def test_only_its_own_stop_ends_a_block(unet):
    passed = []
    with record_attention(unet, self_attention=[2], stop=True), record_attention(unet, cross_attention=[1]):
        unet(*inputs()[:1], TIME, inputs()[1])
        passed.append("inner")
    assert not passed
    recorder = record_attention(unet, self_attention=[2])
    with recorder, pytest.raises(RuntimeError, match="under way already"):
        recorder.__enter__()
    assert all(type(each) is AttnProcessor2_0 for each in unet.attn_processors.values())


def objective(recording) -> Tensor:
    own, text = recording.self_attention(2), recording.cross_attention(4)
    half = torch.arange(64).expand(len(own.query), -1) < 32
    return attention_leakage(own.query, own.key, half).sum() + token_attention(text.query, text.key, [2]).square().sum()


def gradient(unet: nn.Module, *, stop: bool = False, recorder=None) -> Tensor:
    latents, states = inputs()
    latents.requires_grad_()
    recording = recorder or record_attention(unet, **CHOSEN, stop=stop)
    with recording:
        unet(latents, TIME, states)
    return torch.autograd.grad(objective(recording), latents)[0]


def test_a_truncated_pass_has_the_gradients_of_the_full_one_and_runs_no_further(unet):
    full = gradient(unet)
    ran = []
    unet.conv_out.register_forward_hook(lambda *_: ran.append("conv_out"))
    unet.up_blocks[3].register_forward_hook(lambda *_: ran.append("up_blocks.3"))
    unet.up_blocks[2].attentions[2].transformer_blocks[0].attn1.to_v.register_forward_hook(
        lambda *_: ran.append("to_v")
    )
    assert torch.equal(gradient(unet, stop=True), full) and full.abs().max() > 0
    assert not ran
    gradient(unet)
    assert set(ran) == {"conv_out", "up_blocks.3", "to_v"}


def test_what_follows_in_a_stopped_block_is_left_out_and_errors_are_not_hidden(unet):
    reached = False
    with record_attention(unet, cross_attention=[8], stop=True):
        unet(*inputs()[:1], TIME, inputs()[1])
        reached = True
    assert not reached
    with pytest.raises(RuntimeError), record_attention(unet, cross_attention=[8], stop=True):
        unet(*inputs()[:1], TIME, inputs()[1][..., :5])


@pytest.mark.parametrize("stop", [False, True])
def test_recomputation_of_gradient_checkpointing_is_not_recorded(unet, stop):
    expected = gradient(unet)
    unet.enable_gradient_checkpointing()
    unet.train()
    recorder = record_attention(unet, **CHOSEN, stop=stop)
    assert torch.equal(gradient(unet, recorder=recorder), expected)
    latents, states = inputs()
    latents.requires_grad_()
    with recorder:
        unet(latents, TIME, states)
        before = [tensor.data_ptr() for tensor in recorder.self_attention().queries] if not stop else None
        # Still inside the block: the recomputed layers meet the recording processors again.
        if not stop:
            objective(recorder).backward()
            assert [tensor.data_ptr() for tensor in recorder.self_attention().queries] == before
            torch.testing.assert_close(latents.grad, expected, rtol=0, atol=0)


def lora(rank: int = 2) -> LoraConfig:
    return LoraConfig(r=rank, init_lora_weights=False, target_modules=["to_q", "to_k", "to_v", "to_out.0"])


@pytest.mark.parametrize("wrapped", [False, True])
def test_adapted_projections_are_recorded_as_they_are(unet, wrapped):
    plain = gradient(unet)
    torch.manual_seed(5)
    network = get_peft_model(unet, lora()) if wrapped else unet
    if not wrapped:
        unet.add_adapter(lora())
    latents, states = inputs()
    expected = network(latents, TIME, states).sample
    with hooked(unet) as seen, record_attention(network, **CHOSEN) as recording:
        assert torch.equal(network(latents, TIME, states).sample, expected)
    queries = [seen[f"{layer.name}.to_q"] for layer in recording.layers if layer.kind == "self"]
    recorded = [query.transpose(1, 2).flatten(2) for query in recording.self_attention().queries]
    assert all(torch.equal(ours, theirs) for ours, theirs in zip(recorded, queries, strict=True))
    objective(recording).backward()
    learnt = dict(unet.named_parameters())[
        "down_blocks.1.attentions.0.transformer_blocks.0.attn1.to_q.lora_A.default.weight"
    ]
    assert learnt.grad is not None and learnt.grad.abs().max() > 0
    assert not torch.equal(gradient(network), plain)
    torch.testing.assert_close(gradient(network, stop=True), gradient(network), rtol=0, atol=0)


@pytest.mark.parametrize("in_place", [False, True])
def test_a_compiled_unet_is_recorded_each_time_without_new_compilation(small_unet, in_place):
    torch._dynamo.reset()
    latents, states = inputs(2, 8)
    latents.requires_grad_()

    def run(network: nn.Module, *, stop: bool) -> tuple[Tensor, Tensor, Tensor | None]:
        output = None
        recorder = recorders.setdefault(
            stop, record_attention(network, self_attention=[1], cross_attention=[1], stop=stop)
        )
        with recorder:
            output = network(latents, TIME, states).sample
        query = recorder.self_attention().query
        return query, torch.autograd.grad(query.square().sum(), latents)[0], output

    recorders: dict[bool, object] = {}
    expected = {stop: run(small_unet, stop=stop) for stop in (False, True)}
    if in_place:
        small_unet.compile(backend="eager")
        compiled: nn.Module = small_unet
    else:
        compiled = torch.compile(small_unet, backend="eager")
    recorders.clear()
    compiled(latents, TIME, states)
    graphs = []
    for _ in range(3):
        for stop in (False, True):
            for actual, wanted in zip(run(compiled, stop=stop), expected[stop], strict=True):
                assert (actual is None and wanted is None) or torch.equal(actual, wanted)
        graphs.append(torch._dynamo.utils.counters["stats"]["unique_graphs"])
    assert graphs[1] == graphs[2] > 1
    torch._dynamo.reset()


def saved_bytes(unet: nn.Module, size: int) -> tuple[int, int]:
    """Bytes that a guided pass keeps for backward, parameters left out, and numbers in the largest tensor."""
    latents, states = inputs(1, size)
    latents.requires_grad_()
    weights = {parameter.untyped_storage().data_ptr() for parameter in unet.parameters()}
    sizes, numbers = {}, [0]

    def pack(tensor: Tensor) -> Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in weights:
            sizes[storage.data_ptr()] = storage.nbytes()
            numbers.append(tensor.numel())
        return tensor

    kept = []
    with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
        with record_attention(unet, self_attention=[1], cross_attention=[2], stop=True) as recording:
            unet(latents, TIME, states)
        own, text = recording.self_attention(), recording.cross_attention()
        half = torch.arange(size * size)[None] < size
        kept.append(attention_leakage(own.query, own.key, half, regions="both").sum())
        kept.append(token_attention(text.query, text.key, [3, 4]).sum())
    sum(kept).backward()
    return sum(sizes.values()), max(numbers)


def test_memory_of_a_guided_pass_grows_with_the_pixels_and_not_with_their_square(unet):
    unet.requires_grad_(False)
    (small, _), (large, widest) = saved_bytes(unet, 16), saved_bytes(unet, 32)
    pixels = 32 * 32
    assert large < 4.2 * small
    assert widest < pixels * pixels
    # Five layers of two heads, one batch: what the probability maps alone would take.
    assert large < 5 * 2 * pixels * pixels * 4


def test_widths_that_differ_within_a_kind_stay_apart(tiny_base):
    """Version 1 has the same number of heads everywhere, so their width differs from level to level."""
    unet = tiny_base(1).unet
    with torch.no_grad(), record_attention(unet, self_attention=[1, 2]) as recording:
        unet(*inputs()[:1], TIME, inputs()[1])
    assert recording.self_attention(1).query.shape == (2, 10, 256, 8)
    assert recording.self_attention(2).query.shape == (2, 10, 64, 16)


@pytest.mark.parametrize(
    ("choice", "reason"),
    [
        ({}, "choose layers"),
        ({"self_attention": [3]}, r"no self-attention at 3; there is some at factors \[1, 2, 4, 8\]"),
        ({"cross_attention": ["up_blocks.7"]}, "no cross-attention at 'up_blocks.7'"),
        ({"cross_attention": ["up_block"]}, "no cross-attention at 'up_block'"),
        ({"self_attention": ["mid_block.attentions.0.transformer_blocks.0.attn2"]}, "no self-attention at"),
    ],
)
def test_layers_that_do_not_exist_are_refused(unet, choice, reason):
    with pytest.raises(ValueError, match=reason):
        record_attention(unet, **choice)


def test_what_was_not_asked_for_is_not_handed_out(unet):
    with torch.no_grad(), record_attention(unet, self_attention=[2, 4]) as recording:
        unet(*inputs()[:1], TIME, inputs()[1])
    with pytest.raises(ValueError, match=r"self-attention is recorded at factors \[2, 4\], not 1"):
        recording.self_attention(1)
    with pytest.raises(ValueError, match=r"factors \[2, 4\], not None"):
        recording.self_attention()
    with pytest.raises(ValueError, match=r"cross-attention is recorded at factors \[\]"):
        recording.cross_attention(2)


def test_networks_and_layers_of_other_kinds_are_refused(unet):
    with pytest.raises(TypeError, match="UNet2DConditionModel, not of Linear"):
        record_attention(nn.Linear(2, 2), self_attention=[1])
    unet.set_attn_processor(AttnProcessor())
    with pytest.raises(ValueError, match="has the attention processor AttnProcessor; only AttnProcessor2_0"):
        record_attention(unet, self_attention=[2]).__enter__()
    unet.set_attn_processor(AttnProcessor2_0())
    unet.fuse_qkv_projections()
    with pytest.raises(ValueError, match="can be recorded"):
        record_attention(unet, self_attention=[2]).__enter__()


def test_masked_text_is_refused_since_the_record_would_not_show_it(unet):
    latents, states = inputs()
    with pytest.raises(ValueError, match="attention mask"), record_attention(unet, cross_attention=[2]):
        unet(latents, TIME, states, encoder_attention_mask=torch.ones(2, 77))
