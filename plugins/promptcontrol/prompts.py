"""Prompts of lesion type and attributes (paper, section 2)."""

from __future__ import annotations


def typed_prompt(prompt: str | None, label: str | None) -> str:
    """Return the prompt behind the lesion type's name, either alone where the other is missing, "" without both."""
    words = f"{label.replace('_', ' ')}." if label else ""
    return " ".join(filter(None, (words, prompt)))
