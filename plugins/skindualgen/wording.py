"""The paper's prompts (sections 3.4 and 4.2)."""

from __future__ import annotations

TEMPLATE = "a dermoscopic lesion photo of {class_name} for skin cancer diagnosis"
CAPTIONER = f'derm-prompt(prefix="{TEMPLATE.format(class_name="{label}")},")'
"""The chain that writes sentences which begin with the template."""


def class_prompt(label: str) -> str:
    """Return the template with the class in words."""
    return TEMPLATE.format(class_name=label.replace("_", " "))


def with_template(caption: str, label: str) -> str:
    """Return the caption, behind its class's template unless it begins with it."""
    beginning = class_prompt(label)
    return caption if caption.lower().startswith(beginning.lower()) else f"{beginning}, {caption}"
