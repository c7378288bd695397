"""Prompts with the class of what they are about."""

from __future__ import annotations

FIELD = "{label}"


def labelled(prompt: str, label: str | None) -> str | None:
    """Return the prompt with the class in words at ``{label}``; None where it asks for a class and there is none."""
    if FIELD not in prompt:
        return prompt
    return prompt.replace(FIELD, label.replace("_", " ")) if label else None
