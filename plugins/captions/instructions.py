"""What models are told. DiDGen says what its prompts ask for but not how they are worded; these are ours."""

from __future__ import annotations

from collections.abc import Sequence

from ..data.icd11 import Terms, class_words

DESCRIBE = (
    "This is a dermoscopic image of a skin lesion. Describe in one sentence what is visible, in this order: size, "
    "shape and symmetry of the lesion, its border, its colours, its position in the image, the tone of the surrounding "
    "skin, and hair, ruler, ink or other marks if there are any. Name no diagnosis, guess nothing, and write nothing "
    "but the sentence."
)


def describe(label: str | None, prefix: str, terms: Terms) -> str:
    """Return the instruction to describe an image, which names its class where ICD-11's terms are asked for.

    SkinDualGen tells its model the class, ICD-11 terminology and the beginning (section 3.4); the rest is ours.
    """
    if terms == "plain":
        return DESCRIBE
    subject = "a skin lesion" if label is None else class_words(label, terms)
    beginning = f'Begin with "{prefix}". ' if prefix else ""
    return (
        f"This is a dermoscopic image of {subject}. Describe in one sentence and in medical terms what is visible: "
        "size, shape and symmetry of the lesion, its border, its colours and structures, its position in the image, "
        "the tone of the surrounding skin, and hair, ruler, ink or other marks if there are any. Use the terms of "
        f"ICD-11. {beginning}Guess nothing, and write nothing but the sentence."
    )


def rewrite(sentence: str, words: int) -> str:
    """Return the instruction to say ``sentence`` in at most ``words`` words."""
    return (
        f"Rewrite this description of a dermoscopic image as one sentence of at most {words} words. Keep what it says "
        "about shape, size, colour, position, skin tone, hair and marks; add nothing. Write nothing but the sentence."
        f"\n\n{sentence}"
    )


def invent(examples: Sequence[str], label: str | None, words: int, terms: Terms = "plain") -> str:
    """Return the instruction to write a new description after ``examples``."""
    subject = "a skin lesion" if label is None else f"a skin lesion of the class {class_words(label, terms)}"
    listed = "\n".join(f"- {example}" for example in examples)
    return (
        f"These sentences describe dermoscopic images:\n{listed}\n\nWrite one new sentence of at most {words} words "
        f"that describes another, plausible dermoscopic image of {subject}, in the same style but with other "
        f"attributes. {'Use the terms of ICD-11. ' if terms == 'icd-11' else ''}Write nothing but the sentence."
    )
