from __future__ import annotations

import warnings

import pytest
import torch
from diffusers import StableDiffusionPipeline

from lesionforge.plugins.stable_diffusion.base import load_base, save_base
from lesionforge.plugins.stable_diffusion.prompts import PromptEncoder, PromptTruncationWarning, encode_prompts

PROMPTS = ["a brown spot on fair skin", "", "Dark skin."]


@torch.no_grad()
def test_states_are_those_of_diffusers_pipeline(tiny_base, tiny_folder):
    pipeline = StableDiffusionPipeline.from_pretrained(tiny_folder())
    expected, _ = pipeline.encode_prompt(PROMPTS, "cpu", 1, do_classifier_free_guidance=False)
    encoded = encode_prompts(tiny_base(), PROMPTS)
    torch.testing.assert_close(encoded.states, expected)
    assert encoded.states.shape == (3, 77, 32) and encoded.states.dtype == torch.float32


@torch.no_grad()
def test_counts_and_tokens_tell_where_every_word_is(tiny_base):
    base = tiny_base()
    encoded = encode_prompts(base, PROMPTS)
    assert encoded.counts == (8, 2, 5)
    words = base.tokenizer.convert_ids_to_tokens(encoded.tokens[0].tolist())
    assert words[:8] == ["<|startoftext|>", *(f"{word}</w>" for word in PROMPTS[0].split()), "<|endoftext|>"]
    assert encoded.tokens.shape == (3, 77)


@torch.no_grad()
def test_the_order_of_prompts_changes_no_bit(tiny_base):
    base = tiny_base()
    forwards, backwards = encode_prompts(base, PROMPTS).states, encode_prompts(base, PROMPTS[::-1]).states
    assert torch.equal(forwards, backwards.flip(0))


@torch.no_grad()
def test_no_prompts_are_no_rows(tiny_base):
    encoded = encode_prompts(tiny_base(), [])
    assert encoded.states.shape == (0, 77, 32) and encoded.tokens.shape == (0, 77) and encoded.counts == ()


@torch.no_grad()
def test_a_prompt_of_77_tokens_fits_and_one_of_78_is_cut_before_its_end_token(tiny_base):
    base = tiny_base()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert encode_prompts(base, ["skin " * 75]).counts == (77,)
    with pytest.warns(
        PromptTruncationWarning, match=r"1 of 2 prompts exceed the text encoder's 77 tokens.*prompt 1 has 78"
    ):
        encoded = encode_prompts(base, ["skin", "skin " * 76])
    assert encoded.counts == (3, 78)
    assert encoded.tokens[1, -1] == base.tokenizer.eos_token_id
    torch.testing.assert_close(encoded.states[1:], encode_prompts(base, ["skin " * 75]).states)


@torch.no_grad()
def test_a_run_warns_once_and_names_the_cases(tiny_base):
    encoder = PromptEncoder(tiny_base())
    long = ["skin " * (90 + number) for number in range(7)]
    with pytest.warns(PromptTruncationWarning) as heard:
        encoder(["skin"], cases=["case-0"])
        encoder(long, cases=[f"case-{number}" for number in range(1, 8)])
        encoder(long)
    (warning,) = heard
    assert "case-1 has 92, case-2 has 93" in str(warning.message) and "and 2 more" in str(warning.message)
    assert warning.filename == __file__


@torch.no_grad()
def test_added_tokens_count_as_one_and_keep_their_vectors(tiny_base, tmp_path):
    base = tiny_base()
    base.tokenizer.add_tokens(["<lesion>", "<skin>"])
    base.text_encoder.resize_token_embeddings(len(base.tokenizer))
    before = encode_prompts(base, ["An image of <lesion> on <skin>."])
    assert before.counts == (9,)
    assert before.tokens[0, [4, 6]].tolist() == [49408, 49409]
    save_base(base, tmp_path / "learnt")
    after = encode_prompts(load_base(tmp_path / "learnt"), ["An image of <lesion> on <skin>."])
    assert torch.equal(after.tokens, before.tokens) and torch.equal(after.states, before.states)


def test_gradients_reach_the_text_encoder_unless_torch_forbids(tiny_base):
    base = tiny_base()
    encode_prompts(base, PROMPTS).states.sum().backward()
    assert base.text_encoder.embeddings.token_embedding.weight.grad is not None
