"""The paper's prompts (sections 3.4 and 4.2)."""

from __future__ import annotations

from typing import get_args

from ..data.icd11 import Terms, class_words

TEMPLATE = "a dermoscopic lesion photo of {class_name} for skin cancer diagnosis"
CAPTIONER = f'derm-prompt(prefix="{TEMPLATE.format(class_name="{label}")},")'
"""The chain that writes sentences which begin with the template."""


def class_prompt(label: str, terms: Terms = "plain") -> str:
    """Return the template with the class in words."""
    return TEMPLATE.format(class_name=class_words(label, terms))


def with_template(caption: str, label: str, terms: Terms = "plain") -> str:
    """Return the caption behind its class's template, which stands there once, whatever terms it began with."""
    wanted = class_prompt(label, terms)
    for written in (class_prompt(label, each) for each in get_args(Terms)):
        if caption.lower().startswith(written.lower()):
            return caption if written == wanted else wanted + caption[len(written) :]
    return f"{wanted}, {caption}"
