from __future__ import annotations

import re

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lesionforge.plugins.captions.attributes import WIDTHS, Attributes
from lesionforge.plugins.captions.colours import COLOURS
from lesionforge.plugins.captions.wording import LEVELS, PHRASES, SPECKS, describe, facts, level_of
from lesionforge.plugins.stable_diffusion.tokens import clip_tokenizer, count_tokens

MEANING = {phrase: fact for fact, phrases in PHRASES.items() for phrase in phrases}
READER = re.compile("|".join(rf"(?<![\w-]){re.escape(phrase)}(?![\w-])" for phrase in sorted(MEANING, key=len)[::-1]))
COLOUR_WORDS = (*COLOURS, "skin-coloured")

PLAIN = {
    "area": 0.2,
    "centre": [0.5, 0.5],
    "edge": 0.0,
    "elongation": 1.1,
    "asymmetry": [0.01, 0.02],
    "irregularity": 0.01,
    "colours": [0.0, 0.0, 0.7, 0.2, 0.07, 0.0, 0.03],
    "skin_tone": 45.0,
    "hair": 0.0,
    "ruler": 0.1,
    "ink": 0.0,
    "marker": 0.0,
    "corners": 0.9,
}


def attributes(**changed) -> Attributes:
    return Attributes(**{name: torch.tensor([value]) for name, value in {**PLAIN, **changed}.items()})


def understood(sentence: str) -> dict[str, str]:
    """Read a sentence back into facts."""
    found = [MEANING[match.group()] for match in READER.finditer(sentence)]
    assert len({name for name, _ in found}) == len(found), f"one attribute twice in {sentence!r}"
    known = dict(found)
    words = "|".join(map(re.escape, COLOUR_WORDS))
    group = rf"(?:{words})(?:(?:, | and )(?:{words}))*"
    speck = "|".join(SPECKS)
    match = re.search(rf"lesion, ({group})(?: (?:{speck}) ({group}))?(?=[,.])", sentence)
    for name, text in zip(("colours", "specks"), match.groups() if match else (), strict=False):
        if text:
            known[name] = ", ".join(re.findall(words, text))
    return known


def test_a_plain_sentence_says_what_was_measured():
    [sentence] = describe(attributes(), [0], varied=False)
    assert sentence == (
        "A medium-sized round lesion, light brown and dark brown with some blue-grey, symmetric with a regular border, "
        "in the centre, on light skin."
    )


def test_marks_come_last_and_dark_corners_with_them():
    [sentence] = describe(attributes(hair=0.2, ruler=0.9, ink=0.1, marker=0.1, corners=0.3), [0], varied=False)
    assert sentence.endswith(
        "on light skin, with many hairs, a ruler, violet ink marks, a coloured marker and dark corners."
    )


share = st.floats(0, 1)
drawn = st.fixed_dictionaries(
    {
        "area": share,
        "centre": st.lists(share, min_size=2, max_size=2),
        "edge": share,
        "elongation": st.floats(1, 4),
        "asymmetry": st.lists(share, min_size=2, max_size=2),
        "irregularity": st.floats(-0.05, 1),
        "colours": st.lists(share, min_size=7, max_size=7),
        "skin_tone": st.floats(-90, 120),
        **dict.fromkeys(("hair", "ruler", "ink", "marker", "corners"), share),
    }
)


@settings(max_examples=100, deadline=None)
@given(values=drawn, missing=st.sets(st.sampled_from(sorted(PLAIN))), seed=st.integers(0, 2**64 - 1))
def test_wordings_vary_and_facts_do_not(values, missing, seed):
    for name in missing:
        values[name] = [float("nan")] * WIDTHS[name] if name in WIDTHS else float("nan")
    measured = attributes(**values)
    [known] = facts(measured)
    for variant in range(3):
        [sentence] = describe(measured, [(seed + variant) % 2**64])
        assert understood(sentence) == known
        assert sentence[0].isupper() and sentence.endswith(".") and "\n" not in sentence


def test_a_seed_has_one_wording_and_seeds_have_many():
    many = Attributes.joined([attributes()] * 64)
    first = describe(many, range(64))
    assert first == describe(many, range(64))
    assert describe(many.select([5, 3]), [5, 3]) == [first[5], first[3]]
    assert len(set(first)) > 20
    assert len(set(describe(many, range(64), varied=False))) == 1
    assert describe(many, range(64), stream="another stage") != first


def test_each_phrase_belongs_to_one_fact():
    phrases = [phrase for group in PHRASES.values() for phrase in group]
    assert len(phrases) == len(set(phrases))
    for name, levels in LEVELS.items():
        assert {level for _, level in levels} - {"none"} == {level for key, level in PHRASES if key == name}


@pytest.mark.parametrize("name", LEVELS)
def test_a_limit_belongs_to_the_level_above_it(name):
    limits = [limit for limit, _ in LEVELS[name][:-1]]
    names = [level for _, level in LEVELS[name]]
    assert level_of(torch.tensor(limits), LEVELS[name]) == names[1:]
    assert level_of(torch.tensor(limits) - 1e-4, LEVELS[name]) == names[:-1]
    assert level_of(torch.tensor([float("nan")]), LEVELS[name]) == [None]


@pytest.mark.parametrize(
    ("angle", "skin"),
    [(60, "very light"), (50, "light"), (35, "intermediate"), (20, "tan"), (0, "brown"), (-40, "dark")],
)
def test_skin_tones_have_their_published_limits(angle, skin):
    assert facts(attributes(skin_tone=float(angle)))[0]["skin_tone"] == skin


@pytest.mark.parametrize(
    ("x", "y", "place"),
    [(0.5, 0.5, "centre"), (0.2, 0.5, "left"), (0.8, 0.2, "upper right"), (0.45, 0.9, "lower"), (0, 0.9, "lower left")],
)
def test_places_are_seen_from_the_observer(x, y, place):
    assert facts(attributes(centre=[x, y]))[0]["place"] == place


def test_a_lesion_beyond_the_image_has_neither_shape_nor_place():
    [known] = facts(attributes(edge=0.9, area=0.98))
    assert known["cut"] == "overflow" and known["area"] == "huge"
    assert not {"elongation", "asymmetry", "irregularity", "place"} & known.keys()


def test_what_the_edge_of_the_image_hides_is_not_said():
    [known] = facts(attributes(edge=0.1))
    assert known["cut"] == "cut" and known["elongation"] == "round" and known["place"] == "centre"
    assert not {"asymmetry", "irregularity"} & known.keys()


def test_a_lesion_like_its_skin_is_skin_coloured():
    [known] = facts(attributes(colours=[0.0, 0.0, 0.05, 0.0, 0.0, 0.0, 0.95]))
    assert known["colours"] == "skin-coloured" and known["specks"] == "light brown"


def test_nothing_known_is_still_a_sentence():
    assert describe(Attributes.unknown(1), [0], varied=False) == ["A lesion."]


def test_usual_sentences_need_no_shortening():
    """Three colours and two marks, in every wording, beside DiDGen's prefix of 7 tokens with start and end."""
    usual = attributes(
        hair=0.2,
        ruler=0.9,
        irregularity=0.05,
        asymmetry=[0.3, 0.4],
        centre=[0.9, 0.9],
        skin_tone=35.0,
        colours=[0.0, 0.0, 0.5, 0.3, 0.0, 0.1, 0.1],
    )
    sentences = describe(Attributes.joined([usual] * 256), range(256))
    assert max(count_tokens(clip_tokenizer(), sentences)) + 7 <= 77
