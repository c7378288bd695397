"""ICD-11's words for the classes of the ISIC label sets."""

from __future__ import annotations

import pytest

from lesionforge.plugins.data.icd11 import ENTITIES, class_words, entity_of
from lesionforge.plugins.data.labels import DIAGNOSES


@pytest.mark.parametrize(
    ("label", "plain", "icd11"),
    [
        ("nevus", "nevus", "melanocytic naevus"),
        ("seborrheic_keratosis", "seborrheic keratosis", "seborrhoeic keratosis"),
        ("Seborrheic keratosis", "Seborrheic keratosis", "seborrhoeic keratosis"),
        ("benign_keratosis", "benign keratosis", "benign keratosis"),
        ("a_class_of_its_own", "a class of its own", "a class of its own"),
    ],
)
def test_classes_are_worded(label, plain, icd11):
    assert (class_words(label), class_words(label, "icd-11")) == (plain, icd11)


def test_every_entity_is_a_class_of_the_isic_archive():
    assert set(ENTITIES) <= {*DIAGNOSES.values(), "seborrheic_keratosis"}
    codes = [entity.code for entity in ENTITIES.values()]
    assert len(set(codes)) == len(codes)
    assert entity_of(None) is None
