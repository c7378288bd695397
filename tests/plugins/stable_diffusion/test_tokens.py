from __future__ import annotations

from functools import cache

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lesionforge.plugins.stable_diffusion.tokens import clip_tokenizer, count_tokens

open_clip = pytest.importorskip("open_clip")
SENTENCE = "An uneven, dark-brown lesion (6.5 mm) with irregular borders lies on Fitzpatrick II skin; it isn't hairy."


@cache
def both():
    return clip_tokenizer(), open_clip.SimpleTokenizer()


@pytest.fixture(scope="module")
def ours():
    return both()[0]


@pytest.fixture(scope="module")
def theirs():
    return both()[1]


def test_the_whole_vocabulary_is_open_clips(ours, theirs):
    special = {"<start_of_text>": "<|startoftext|>", "<end_of_text>": "<|endoftext|>"}
    assert ours.get_vocab() == {special.get(word, word): number for word, number in theirs.encoder.items()}


@pytest.mark.parametrize("text", [SENTENCE, "", "naïve Übergröße, 3×4 µm² – «ça va»", "红色 病变", "🙂🔬", "a  b\n\tc"])
def test_sentences_become_open_clips_tokens(ours, theirs, text):
    start, end = theirs.sot_token_id, theirs.eot_token_id
    assert ours(text)["input_ids"] == [start, *theirs.encode(text), end]


# open_clip mends HTML, curled quotes and mojibake first, which transformers leaves as they are.
WORDS = st.text(st.characters(codec="ascii", exclude_characters="&<>", exclude_categories=["Cc"]), max_size=60)


@given(WORDS)
def test_any_ascii_text_becomes_open_clips_tokens(text):
    ours, theirs = both()
    assert ours(text)["input_ids"][1:-1] == theirs.encode(text)


def test_padding_to_the_context_repeats_the_end_token(ours, theirs):
    rows = ours([SENTENCE, ""], padding="max_length", truncation=True)["input_ids"]
    assert [len(row) for row in rows] == [77, 77]
    assert set(rows[1][1:]) == {theirs.eot_token_id}


def test_counts_include_start_and_end_and_are_not_truncated(ours):
    assert count_tokens(ours, ["", "skin", "skin " * 100]) == [2, 3, 102]
    assert count_tokens(ours, []) == []


def test_every_call_returns_a_tokenizer_of_ones_own():
    first = clip_tokenizer()
    first.add_tokens(["<lesion>"])
    assert count_tokens(first, ["<lesion>"]) == [3]
    assert count_tokens(clip_tokenizer(), ["<lesion>"]) > [3]
