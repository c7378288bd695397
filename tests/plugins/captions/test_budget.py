from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionforge.core.batch import Batch
from lesionforge.core.config import build_config
from lesionforge.core.errors import ConfigError, PluginError
from lesionforge.plugins.captions.budget import PromptBudget
from lesionforge.plugins.captions.config import PREFIX, CaptionConfig
from lesionforge.plugins.stable_diffusion.tokens import clip_tokenizer, count_tokens

SENTENCE = "A large oval lesion, dark brown and black, asymmetric with a ragged border, in the centre, on light skin."
BUDGET = PromptBudget(PREFIX, 77)


def test_a_placeholder_is_one_token():
    assert BUDGET.tokens([PREFIX]) == [len(["start", "an", "image", "of", "<lesion>", "on", "<skin>", ".", "end"])]
    assert count_tokens(clip_tokenizer(), [PREFIX])[0] > 9


def test_what_fits_is_left_alone():
    batch = BUDGET.fill(Batch.blank(1), [f"  {SENTENCE}\n"])
    assert batch.prompts == (f"{PREFIX} {SENTENCE}",)
    assert batch.provenance == ({},)


def test_clauses_are_dropped_from_the_end():
    short = PromptBudget(PREFIX, 9 + count_tokens(clip_tokenizer(), [SENTENCE])[0] - 2 - 2)
    batch = short.fill(Batch.blank(1), [SENTENCE])
    assert batch.prompts == (f"{PREFIX} {SENTENCE.removesuffix(', on light skin.')}.",)
    assert batch.provenance == ({"prompt_shortened": True},)


@settings(max_examples=25, deadline=None)
@given(
    text=st.lists(st.sampled_from([*"abcdef", "lesion,", "irregular;", "border.", "asymmetric", "3.5"]), min_size=1),
    limit=st.integers(12, 77),
)
def test_a_prompt_keeps_to_the_limit_and_to_whole_words(text, limit):
    sentence = " ".join(text * 9)
    budget = PromptBudget(PREFIX, limit)
    short = budget.shortened(PREFIX, sentence)
    assert budget.tokens([f"{PREFIX} {short}".strip()])[0] <= limit
    words = short.removesuffix(".").split()
    assert [word.rstrip(",;.") for word in words] == [word.rstrip(",;.") for word in sentence.split()[: len(words)]]


def test_one_endless_clause_is_cut_after_a_word():
    short = BUDGET.shortened(PREFIX, " ".join(["pigmented"] * 100))
    assert set(short.removesuffix(".").split()) == {"pigmented"} and 75 <= BUDGET.tokens([f"{PREFIX} {short}"])[0] <= 77


def test_a_prefix_that_is_too_long_is_an_error():
    with pytest.raises(ConfigError, match="alone takes more than 10 CLIP tokens"):
        PromptBudget("word " * 10, 10).shortened("word " * 10, SENTENCE)


def test_the_label_goes_into_the_prefix():
    budget = PromptBudget("a photo of {label} with <mask>.", 77)
    batch = Batch.blank(1).with_columns(labels=["seborrheic_keratosis"])
    assert budget.prefixes(batch) == ["a photo of seborrheic keratosis with <mask>."]
    with pytest.raises(PluginError, match=r"needs a label, and case case-00000000 has none"):
        budget.prefixes(Batch.blank(1))


@pytest.mark.parametrize("prefix", ["{}", "{class}", "{label!r}", "{label:>9}", "{label.name}", "{label", "{{label}}"])
def test_other_fields_are_refused(prefix):
    with pytest.raises(ConfigError, match=r"the only field of a prefix is \{label\}"):
        build_config(CaptionConfig, {"prefix": prefix}, where="stage derm-prompt")


@pytest.mark.parametrize(
    ("sentence", "left"),
    [
        ("A photo of melanoma of skin, dark and round.", "dark and round."),
        ("a photo of MELANOMA of skin: dark", "dark"),
        ("A photo of melanoma of skin showing pigment.", "showing pigment."),
        ("A photo of melanoma of skinny people.", "A photo of melanoma of skinny people."),
        ("Dark, a photo of melanoma of skin, round.", "Dark, a photo of melanoma of skin, round."),
    ],
)
def test_a_prefix_that_a_model_wrote_as_told_is_not_written_twice(sentence, left):
    budget, prefix = PromptBudget("a photo of {label},", 77, "icd-11"), "a photo of melanoma of skin,"
    assert budget.bare(prefix, sentence) == left
    out = budget.fill(Batch.blank(1).with_columns(labels=["melanoma"]), [sentence])
    assert out.prompts == (f"{prefix} {left}",)
    assert out.provenance == ({"icd_11": "2C30"},)
    assert PromptBudget("a photo of {label},", 77).bare(prefix, sentence) == sentence
