"""ICD-11's names for the classes of the ISIC label sets, and its codes where one entity fits a class.

Source: WHO, International Classification of Diseases, 11th revision, for mortality and morbidity statistics. British
spelling is ICD-11's own. Classes that put several entities together, such as ``benign_keratosis``, keep their words.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Terms = Literal["plain", "icd-11"]
"""How classes are worded: by the data's own names, or by ICD-11's."""


@dataclass(frozen=True)
class Entity:
    """One entity of ICD-11."""

    name: str
    code: str


ENTITIES = {
    "melanoma": Entity("melanoma of skin", "2C30"),
    "nevus": Entity("melanocytic naevus", "2F20"),
    "basal_cell_carcinoma": Entity("basal cell carcinoma of skin", "2C32"),
    "squamous_cell_carcinoma": Entity("squamous cell carcinoma of skin", "2C31"),
    "actinic_keratosis": Entity("actinic keratosis", "EK90.0"),
    "seborrheic_keratosis": Entity("seborrhoeic keratosis", "2F21.0"),
    "dermatofibroma": Entity("dermatofibroma", "2F23.0"),
}
"""Entities by class name. 2F20 is ICD-11's group of benign cutaneous melanocytic neoplasms."""


def class_words(label: str, terms: Terms = "plain") -> str:
    """Return the class in words, as ICD-11 names it where ``terms`` asks for that and it has the class."""
    entity = entity_of(label) if terms == "icd-11" else None
    return label.replace("_", " ") if entity is None else entity.name


def entity_of(label: str | None) -> Entity | None:
    """Return the class's entity, None for no class or one that ICD-11 does not have."""
    return None if label is None else ENTITIES.get(label.strip().lower().replace(" ", "_"))
