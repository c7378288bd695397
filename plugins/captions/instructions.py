"""What models are told. DiDGen says what its prompts ask for but not how they are worded; these are ours."""

from __future__ import annotations

from collections.abc import Sequence

DESCRIBE = (
    "This is a dermoscopic image of a skin lesion. Describe in one sentence what is visible, in this order: size, "
    "shape and symmetry of the lesion, its border, its colours, its position in the image, the tone of the surrounding "
    "skin, and hair, ruler, ink or other marks if there are any. Name no diagnosis, guess nothing, and write nothing "
    "but the sentence."
)


def rewrite(sentence: str, words: int) -> str:
    """Return the instruction to say ``sentence`` in at most ``words`` words."""
    return (
        f"Rewrite this description of a dermoscopic image as one sentence of at most {words} words. Keep what it says "
        "about shape, size, colour, position, skin tone, hair and marks; add nothing. Write nothing but the sentence."
        f"\n\n{sentence}"
    )


def invent(examples: Sequence[str], label: str | None, words: int) -> str:
    """Return the instruction to write a new description after ``examples``."""
    subject = "a skin lesion" if label is None else f"a skin lesion of the class {label.replace('_', ' ')}"
    listed = "\n".join(f"- {example}" for example in examples)
    return (
        f"These sentences describe dermoscopic images:\n{listed}\n\nWrite one new sentence of at most {words} words "
        f"that describes another, plausible dermoscopic image of {subject}, in the same style but with other "
        "attributes. Write nothing but the sentence."
    )
